import copy
import pickle

import torch

from mmf_flava.data.collate import collate


def sample(length, name):
    ids = torch.arange(1, length + 1)
    return {
        "sample_id": name,
        "image": torch.zeros(3, 2, 2),
        "input_ids": ids,
        "input_ids_masked": ids.clone(),
        "input_mask": torch.ones(length, dtype=torch.bool),
        "lm_label_ids": ids.clone(),
        "is_correct": length % 2,
        "targets": -1,
        "captions": [name, name],
    }


def batch():
    return collate([sample(2, "x"), sample(3, "y")], "pmd", "train", pad_id=9)


def test_texts_are_padded_to_the_longest_text():
    found = batch()
    assert found.input_ids.tolist() == [[1, 2, 9], [1, 2, 3]]
    assert found.input_ids_masked.tolist() == [[1, 2, 9], [1, 2, 3]]
    assert found.input_mask.tolist() == [[True, True, False], [True, True, True]]
    assert found.lm_label_ids.tolist() == [[1, 2, -1], [1, 2, 3]]


def test_other_fields_are_stacked_or_listed():
    found = batch()
    assert found.image.shape == (2, 3, 2, 2)
    assert found.is_correct.tolist() == [0, 1]
    assert found.is_correct.dtype == found.targets.dtype == torch.int64
    assert found.sample_id == ["x", "y"]
    assert found.captions == [["x", "x"], ["y", "y"]]
    assert (found.dataset_name, found.dataset_type) == ("pmd", "train")
    assert found.get_batch_size() == 2


def test_batch_can_be_moved_copied_and_pickled():
    found = batch()
    for other in (found.to("cpu"), pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert other.fields() == found.fields()
        assert torch.equal(other.input_ids, found.input_ids)
        assert other.get_batch_size() == 2


def test_batch_of_one_sample_has_a_batch_dimension():
    assert collate([sample(1, "x")], "pmd", "val").is_correct.shape == (1,)


def test_lengths_are_rounded_up_to_the_multiple():
    samples = [{"input_ids": torch.tensor([2, 5, 3]), "input_mask": torch.ones(3, dtype=torch.bool)}]
    batch = collate(samples, "pmd", "train", pad_id=0, pad_to_multiple=4)
    assert batch["input_ids"].tolist() == [[2, 5, 3, 0]]
    assert batch["input_mask"].tolist() == [[True, True, True, False]]
