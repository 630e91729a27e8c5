import pytest
from PIL import Image

from mmf_flava.data.annotations import parse_label
from mmf_flava.data.record import Record
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError


def test_batch_has_images_and_labels(load):
    dataset = load("imagenet")
    batch = dataset.collate([dataset[n] for n in range(40)])
    assert batch.image.shape == batch.image_for_codebook.shape == (40, 3, 24, 24)
    assert batch.image_patch_mask.shape == (40, 36)
    assert len(set(batch.targets.tolist())) > 5, "class folders must be shuffled together"
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert [name.split("/")[0] for name in batch.sample_id] == [names[n] for n in batch.targets]
    assert "input_ids" not in batch


def test_labels_are_parsed_from_cls_and_json():
    assert parse_label(Record("x", {"cls": b"17"})) == 17
    assert parse_label(Record("x", {"json": b'{"label": 4}'})) == 4
    for parts in ({}, {"cls": b"cat"}, {"json": b"{}"}, {"json": b"["}):
        assert parse_label(Record("x", parts)) == -1


def test_shards_without_valid_images_raise_an_error(config, load, tmp_path):
    with ShardWriter(tmp_path / "bad.tar") as shard:
        shard.write("1", {"jpg": b"<html>", "cls": b"1"})
        shard.write("2", {"cls": b"1"})
    config.dataset_config.imagenet.splits.train = [str(tmp_path / "bad.tar")]
    dataset = load("imagenet")
    with pytest.raises(UserError, match="2 consecutive records"):
        dataset[0]


def test_all_splits_have_the_numbers_of_the_training_folders(config, load, tmp_path):
    for name in ("train/cat", "train/dog", "val/dog", "val/other"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (30, 30)).save(tmp_path / name / "1.png")
    config.dataset_config.imagenet.data_dir = str(tmp_path)
    config.dataset_config.imagenet.splits = {"train": {"train": 1.0}, "val": ["val"]}
    assert [load("imagenet", "val")[n].targets for n in range(2)] == [1, -1]
    config.dataset_config.imagenet.classes = ["other", "dog", "cat"]
    assert [load("imagenet", "val")[n].targets for n in range(2)] == [1, 0]


def test_several_training_folders_have_one_numbering(config, load, tmp_path):
    for name in ("a/cat", "a/eel", "b/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (30, 30)).save(tmp_path / name / "1.png")
    section = config.dataset_config.imagenet
    section.data_dir = str(tmp_path)
    for splits in ({"train": ["a", "b"], "test": ["a", "b"]}, {"test": ["a", "b"]}):  # the second as for a linear probe
        section.splits = splits
        assert [load("imagenet", "test")[n].targets for n in range(3)] == [0, 2, 1]
