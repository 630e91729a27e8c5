import pytest

from mmf_flava.data.imagenet import class_number
from mmf_flava.data.record import Record
from mmf_flava.data.shards import ShardWriter
from mmf_flava.errors import UserError


def test_a_batch_of_images(load):
    dataset = load("imagenet")
    batch = dataset.collate([dataset[n] for n in range(40)])
    assert batch.image.shape == batch.image_for_codebook.shape == (40, 3, 24, 24)
    assert batch.image_patch_mask.shape == (40, 36)
    assert len(set(batch.targets.tolist())) > 5, "class folders are shuffled as a whole"
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert [name.split("/")[0] for name in batch.sample_id] == [names[n] for n in batch.targets]
    assert "input_ids" not in batch


def test_labels_of_shards():
    assert class_number(Record("x", {"cls": b"17"})) == 17
    assert class_number(Record("x", {"json": b'{"label": 4}'})) == 4
    for parts in ({}, {"cls": b"cat"}, {"json": b"{}"}, {"json": b"["}):
        assert class_number(Record("x", parts)) == -1


def test_shards_of_what_is_no_picture(config, load, tmp_path):
    with ShardWriter(tmp_path / "bad.tar") as shard:
        shard.write("1", {"jpg": b"<html>", "cls": b"1"})
        shard.write("2", {"cls": b"1"})
    config.dataset_config.imagenet.splits.train = [str(tmp_path / "bad.tar")]
    dataset = load("imagenet")
    with pytest.raises(UserError, match="2 records in a row"):
        dataset[0]
