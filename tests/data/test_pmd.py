import json

import pytest
import torch

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.errors import UserError


def parse(**parts):
    return parse_annotation(Record("x", {extension: data.encode() for extension, data in parts.items()}))


def test_batch_has_the_documented_fields(load):
    dataset = load("pmd")
    batch = dataset.collate([dataset[n] for n in range(8)])
    tokens = batch.input_ids.shape[1]
    shapes = {
        "image": (8, 3, 24, 24),
        "image_for_codebook": (8, 3, 24, 24),
        "image_patch_mask": (8, 36),
        "input_ids": (8, tokens),
        "input_mask": (8, tokens),
        "segment_ids": (8, tokens),
        "input_ids_masked": (8, tokens),
        "lm_label_ids": (8, tokens),
        "is_correct": (8,),
        "targets": (8,),
    }
    assert {name: tuple(batch[name].shape) for name in shapes} == shapes
    assert batch.image_patch_mask.dtype == torch.bool
    assert batch.input_mask.dtype == batch.segment_ids.dtype == torch.int64
    assert all(isinstance(name, str) for name in batch.sample_id)
    assert all(len(captions) == 5 for captions in batch.captions)
    assert (batch.input_mask == (batch.input_ids != 0)).all()
    assert ((batch.lm_label_ids != -1).sum(1) >= 1).all()
    assert (batch.dataset_name, batch.dataset_type) == ("pmd", "train")


def test_negatives_are_captions_of_other_records(config, load):
    config.dataset_config.pmd.mismatch_probability = 0.5
    dataset = load("pmd")
    tokenizer, mismatches = dataset.text_processor.tokenizer, 0
    for n in range(400):
        sample = dataset[n]
        positives = [[2, *tokenizer.encode(text).ids, 3] for text in sample.captions]
        assert (sample.input_ids.tolist() in positives) == bool(sample.is_correct)
        mismatches += 1 - sample.is_correct
    assert 160 < mismatches < 240


@pytest.mark.parametrize("reason", [Reason.VANISHED, Reason.CHANGED])
def test_a_caption_that_cannot_be_read_is_not_replaced_by_another(config, load, monkeypatch, reason):
    """After a failed download, another caption would silently change the run; the sample is replaced, and listed."""
    config.dataset_config.pmd.mismatch_probability = 0.999
    dataset = load("pmd")
    original, failures = dataset.records.read, iter([True])

    def read(index, only=None):
        if only is not None and next(failures, False):
            raise BadRecord(reason, "a caption")
        return original(index, only)

    monkeypatch.setattr(dataset.records, "read", read)
    replaced = dataset[0].replaced
    assert [entry["reason"] for entry in replaced] == ([Reason.VANISHED] if reason is Reason.VANISHED else [])
    assert dataset[0].replaced == []


def test_length_buckets_reduce_padding(config, load):
    """The demo's records have five captions each; the buckets use the total bytes of all five."""
    config.dataset_config.pmd.mismatch_probability = 0.5
    config.dataset_config.pmd.length_buckets = 8
    dataset = load("pmd")
    sizes = [dataset.caption_bytes(n) for n in range(200)]
    assert sizes == [len(dataset.records.read(dataset.order.index(n)).fields["json"]) for n in range(200)]
    loader = MultitaskLoader({"pmd": dataset}, DatasetSchedule({"pmd": dataset}), 25)
    spans = []
    for _ in range(8):
        lengths = [sum(map(len, captions)) for captions in next(loader)[1].captions]
        spans.append(max(lengths) - min(lengths))
    assert sum(spans) < 2 * (max(sizes) - min(sizes))
    config.dataset_config.pmd.length_buckets = 0
    with pytest.raises(UserError, match="length_buckets"):
        load("pmd")


@pytest.mark.parametrize("split", ["val", "test"])
def test_outside_training_every_pair_matches(config, load, split):
    config.dataset_config.pmd.mismatch_probability = 0.9
    dataset = load("pmd", split)
    assert all(dataset[n].is_correct == 1 for n in range(100))
    assert {dataset[n].targets for n in range(100)} == set(range(10))


def test_mismatch_probability_zero_disables_negatives(config, load):
    config.dataset_config.pmd.mismatch_probability = 0
    dataset = load("pmd")
    assert all(dataset[n].is_correct == 1 for n in range(100))
    config.dataset_config.pmd.mismatch_probability = 1
    with pytest.raises(UserError, match="mismatch_probability"):
        load("pmd")


def test_all_caption_formats_are_parsed():
    assert parse(json=json.dumps({"captions": ["a", "", None, "b"], "label": 3})) == (["a", "b"], 3)
    assert parse(json=json.dumps({"caption": "one", "url": "..."})) == (["one"], -1)
    assert parse(json="{}", txt=" from txt \n") == (["from txt"], -1)
    for parts in ({}, {"json": "{"}, {"json": "[]"}, {"txt": "  "}, {"json": '{"captions": 3}'}):
        with pytest.raises(BadRecord):
            parse(**parts)
