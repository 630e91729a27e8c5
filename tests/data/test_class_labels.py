"""Numbers of classes: class folders, shards, lists and the classifier of the run have the same ones."""

from functools import partial

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.data import class_labels, image_classification, processors  # noqa: F401 (they register)
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError
from tests.data.image_sets.published import save
from tests.data.labelled_images import load_labelled, write_folders, write_list


@pytest.fixture
def load(tmp_path, demo):
    """``load(split, key=value, ...)`` through the registered builder, at an image size of 24 x 24 pixels."""
    return partial(load_labelled, tmp_path, demo)


@pytest.fixture
def finetuning():
    """``finetuning(num_labels)`` makes a classification model MMF's current configuration."""
    current = registry.get("config", default=None, no_warning=True)

    def register(num_labels):
        section = {
            "model": "flava_classification",
            "model_config": {"flava_classification": {"num_labels": num_labels}},
        }
        registry.register("config", OmegaConf.create(section))

    yield register
    registry.register("config", current)


def targets(dataset):
    return [int(dataset[n].targets) for n in range(len(dataset))]


def test_all_splits_have_the_numbers_of_the_training_classes(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog", "eel", "fox")
    write_folders(tmp_path / "val", "cat", "eel", "fox")
    splits = {"train": ["train"], "val": ["val"], "test": ["val"]}
    for split in ("val", "test"):
        dataset = load(split, splits=splits)
        assert dataset.classes == ["cat", "dog", "eel", "fox"]
        assert targets(dataset) == [0, 2, 3]
    assert targets(load("train", splits=splits)) == [0, 1, 2, 3]
    assert targets(load("test", splits={"test": ["val"]})) == [0, 1, 2], "the only split numbers itself"
    (tmp_path / "train" / "classes.txt").write_text("fox\ncat\ndog\neel\n")
    assert targets(load("val", splits=splits)) == [1, 3, 0]


def test_classes_may_be_listed(tmp_path, load):
    write_folders(tmp_path / "val", "cat", "fox")
    (tmp_path / "names.txt").write_text("fox\r\ndog\ncat\n")
    for classes in ("names.txt", ["fox", "dog", "cat"]):
        dataset = load("val", splits={"train": ["nowhere"], "val": ["val"]}, classes=classes)
        assert (dataset.classes, targets(dataset)) == (["fox", "dog", "cat"], [2, 0])
    for classes, words in (("none.txt", "failed to read"), (["a", "a"], "listed more than once: a"), ([], "no class")):
        with pytest.raises(UserError, match=rf"image_classification\.classes: .*{words}"):
            load("val", splits={"val": ["val"]}, classes=classes)


def test_folder_that_training_lacks_raises(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog")
    write_folders(tmp_path / "val", "cat", "cow")
    with pytest.raises(UserError, match=r"splits\.val: .*/val: the folders cow are not among the 2 classes"):
        load("val", splits={"train": ["train"], "val": ["val"]})


def test_hidden_folders_are_no_classes(tmp_path, load, finetuning):
    write_folders(tmp_path / "train", "cat", "dog", ".ipynb_checkpoints", "__MACOSX")
    finetuning(2)
    dataset = load("train", splits={"train": ["train"]})
    assert (dataset.classes, targets(dataset)) == (["cat", "dog"], [0, 1])
    finetuning(1)
    with pytest.raises(UserError, match=r"num_labels is 1, but there are 2 classes: cat, dog\. Set it to 2"):
        load("train", splits={"train": ["train"]})


def test_partly_labelled_lists_raise(tmp_path, load):
    write_list(tmp_path / "a.jsonl", ..., 1, 2, None, 0)
    for split in ("train", "val"):
        with pytest.raises(
            UserError, match=rf"splits\.{split}: .*a\.jsonl: 2 of 5 entries have no label: line 1, line 4"
        ):
            load(split, splits={split: ["a.jsonl"]})
    write_list(tmp_path / "a.jsonl", ..., ...)
    assert targets(load("test", splits={"test": ["a.jsonl"]})) == [-1, -1], "an unlabelled test split can be predicted"
    with pytest.raises(UserError, match="2 of 2 entries have no label"):
        load("train", splits={"train": ["a.jsonl"]})


def test_labels_beyond_the_classes_raise(tmp_path, load, finetuning):
    write_list(tmp_path / "a.jsonl", 0, 1, 7, 2)
    finetuning(3)
    with pytest.raises(
        UserError, match=r"1 of 4 entries have a label that is not in 0\.\.2 \(3 classes\): line 3 \(label 7\)"
    ):
        load("train", splits={"train": ["a.jsonl"]})


@pytest.mark.parametrize("label", [True, 2.5, float("inf"), -3, 2**63, [1]])
def test_invalid_labels_raise(tmp_path, load, label):
    write_list(tmp_path / "a.jsonl", 0, label, 1)
    with pytest.raises(UserError, match=r"a\.jsonl: 1 of 3 entries have an invalid label: line 2 \(label"):
        load("val", splits={"val": ["a.jsonl"]})


def test_labels_may_be_class_names(tmp_path, load):
    write_list(tmp_path / "train.jsonl", "dog", "cat", "10", "9")
    write_list(tmp_path / "val.jsonl", "10", "dog")
    splits = {"train": ["train.jsonl"], "val": ["val.jsonl"]}
    assert load("train", splits=splits).classes == ["10", "9", "cat", "dog"]
    assert targets(load("train", splits=splits)) == [3, 2, 0, 1]
    assert targets(load("val", splits=splits)) == [0, 3]
    write_list(tmp_path / "val.jsonl", "cow")
    with pytest.raises(UserError, match=r"val\.jsonl: 1 of 1 entries have an invalid label: line 1"):
        load("val", splits=splits)


def test_unlabelled_images_beside_class_folders_raise(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog", ".")
    with pytest.raises(UserError, match=r"train: 1 of 3 entries have no label: 0\.png"):
        load("train", splits={"train": ["train"]})


def test_bad_labels_in_shards_cost_their_records(tmp_path, load, finetuning):
    save(tmp_path / "1.png", 0)
    image = (tmp_path / "1.png").read_bytes()
    with ShardWriter(tmp_path / "a.tar") as shard:
        for number, label in enumerate((b"0", b"5", b"dog", None, b"1")):
            shard.write(str(number), {"png": image} | ({} if label is None else {"cls": label}))
    finetuning(2)
    for split in ("train", "val"):
        dataset = load(split, splits={split: ["a.tar"]})
        assert targets(dataset) == [0, 1, 1, 1, 1]
        reasons = [entry["reason"] for entry in dataset[1]["replaced"]]
        assert reasons == ["unknown label", "unreadable label", "no label"]


def test_folders_beside_training_shards_need_all_classes(tmp_path, load, finetuning):
    save(tmp_path / "1.png", 0)
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("1", {"png": (tmp_path / "1.png").read_bytes(), "cls": b"2"})
    write_folders(tmp_path / "val", "cat", "eel")
    finetuning(3)
    with pytest.raises(UserError, match="2 class folders are unknown: the train split has class numbers without names"):
        load("val", splits={"train": ["a.tar"], "val": ["val"]})
    assert targets(load("val", splits={"train": ["a.tar"], "val": ["val"]}, classes=["cat", "dog", "eel"])) == [0, 2]


def test_labels_are_numbered_as_in_the_classifier_of_the_run(tmp_path, load, monkeypatch):
    """The test split lacks a class, and there is no train split."""
    for name in ("zebra", "cat"):
        save(tmp_path / "test" / name / "1.png", 1)
    monkeypatch.setattr(class_labels, "stored_classes", lambda: ("zebra", "dog", "cat"))
    (batch,) = build_evaluation_loader(dataset := load(splits={"test": ["test"]}), 2)
    assert (batch.targets.tolist(), dataset.classes) == ([2, 0], ["zebra", "dog", "cat"])
    report = {"sample_id": ["a", "b"], "scores": torch.tensor([[0.0, 9.0, 0.0], [50.0, 0.0, 0.0]])}
    assert dataset.format_for_prediction(report) == [
        {"id": "a", "prediction": "dog", "confidence": 0.9998},
        {"id": "b", "prediction": "zebra", "confidence": 1.0},
    ]
    with pytest.warns(UserWarning, match=r"classes of the dataset \(cat, zebra, cow\) differ from the classes that"):
        assert load(splits={"test": ["test"]}, classes=["cat", "zebra", "cow"]).classes == ["cat", "zebra", "cow"]


def test_predictions_are_numbers_without_class_names(tmp_path, load):
    save(tmp_path / "test" / "1.png", 1)
    dataset = load(splits={"test": ["test"]})
    report = {"sample_id": ["a"], "scores": torch.tensor([[0.0, 9.0, 0.0]])}
    assert dataset.format_for_prediction(report) == [{"id": "a", "prediction": 1, "confidence": 0.9998}]
