"""Each published set as it lies on disk, made small: the right label with the right image, and sentences where not."""

from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from mmf_flava.data.image_sets.catalogue import SETS, download_set, open_set
from mmf_flava.data.imagenet import class_number
from mmf_flava.data.pictures import decode
from mmf_flava.data.record import BadRecord
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.errors import UserError
from tests.data.image_sets.published import MAKERS, STEP

# some split's labels in order, and the names of the classes
SAID = {
    "CIFAR10": ("test", [2, 0], ["airplane", "automobile", "bird"]),
    "CIFAR100": ("test", [2, 0], ["airplane", "automobile", "bird"]),
    "CLEVRClassification": ("val", [0, 7], None),
    "Caltech101": ("test", [0] * 3 + [1] * 3 + [2] * 3, ["BACKGROUND_Google", "Faces", "accordion"]),
    "Country211": ("valid", [0, 1], ["AD", "AE"]),
    "DTD": ("val", [1, 0], ["banded", "zigzagged"]),
    "EuroSAT": ("train", [0] * 3 + [1] * 3, ["AnnualCrop", "Forest"]),
    "FER2013": ("test", [6, 5, 0], None),
    "FGVCAircraft": ("test", [1, 0], ["707-320", "727-200"]),
    "Flowers102": ("test", [1, 0], datasets.Flowers102.classes),
    "Food101": ("test", [1, 0], ["apple_pie", "waffles"]),
    "GTSRB": ("test", [1, 0], None),
    "ImageNet": ("val", [0, 1], ["tench", "goldfish"]),
    "Kitti": ("train", None, None),
    "MNIST": ("test", [3, 7], datasets.MNIST.classes),
    "OxfordIIITPet": ("test", [1, 0], ["Abyssinian", "American Bulldog"]),
    "PCAM": ("test", [1, 0], None),
    "RenderedSST2": ("val", [0, 1], ["negative", "positive"]),
    "STL10": ("test", [1, 2], ["airplane", "bird", "car"]),
    "SUN397": ("test", [1, 0], ["abbey", "apse/indoor"]),
    "StanfordCars": ("test", [1, 0], ["Acura RL", "BMW M3"]),
    "UCF101": ("test01", [1, 0], ["Apply Eye Makeup", "Yo Yo"]),
}


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    """The published checksums are those of the whole sets."""
    for module in (datasets.cifar, datasets.stl10, datasets.flowers102, datasets.fer2013):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


def test_every_set_is_tested():
    assert SETS.keys() == SAID.keys() == MAKERS.keys()


@pytest.mark.parametrize("name", SAID)
def test_a_set_as_it_lies_on_disk(tmp_path, name):
    MAKERS[name](tmp_path)
    split, labels, classes = SAID[name]
    records = open_set(name, tmp_path, split)
    found = [records.read(index) for index in range(len(records))]
    if labels is not None:
        assert [class_number(record) for record in found] == labels
    for record in found:
        assert decode(record, 8).mean() == pytest.approx(class_number(record) * STEP + 10, abs=4), record.key
    assert records.classes == classes
    assert len({record.key for record in found}) == len(found)
    assert records.read(0, ("cls",)).parts.keys() == {"cls"}
    assert records_sha256(records) == records_sha256(open_set(name, tmp_path, split))


@pytest.mark.parametrize("name", SAID)
def test_the_splits_of_a_set(tmp_path, name):
    MAKERS[name](tmp_path)
    for split in SETS[name].splits:
        assert len(open_set(name, tmp_path, split)) or name in ("EuroSAT", "CLEVRClassification")
    with pytest.raises(UserError, match=f"has no split 'tset'; it has {SETS[name].splits[0]}"):
        open_set(name, tmp_path, "tset")


@pytest.mark.parametrize("name", SAID)
def test_a_set_that_is_not_there(tmp_path, name):
    with pytest.raises(UserError) as error:
        open_set(name, tmp_path, SAID[name][0])
    text = str(error.value)
    assert f"data_dir: {name} ({SAID[name][0]}) is not in {tmp_path}: looked for {SETS[name].files}" in text
    assert SETS[name].home in text
    assert ("download: true" in text) == SETS[name].downloads


def test_an_unknown_set():
    with pytest.raises(UserError, match="Did you mean 'CIFAR10'"):
        open_set("CIFAR1O", None, "test")


def test_drawn_splits_share_nothing_and_stay(tmp_path):
    MAKERS["Caltech101"](tmp_path)
    train, test = (open_set("Caltech101", tmp_path, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (3 * 30, 3 * 3)
    assert not {*train.keys} & {*test.keys}
    assert open_set("Caltech101", tmp_path, "test").keys == test.keys
    drawn = [key.partition("/")[2] for key in test.keys]
    assert drawn[:3] != drawn[3:6], "each class is drawn for itself"


def test_kitti_is_split_by_videos(tmp_path):
    MAKERS["Kitti"](tmp_path)
    keys = {split: set(open_set("Kitti", tmp_path, split).keys) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in keys.items()} == {"train": 16, "val": 2, "test": 2}
    assert len(set.union(*keys.values())) == 20
    # picture n is of video 19 - n; these two are the first that numpy's old generator draws with seed 123
    drawn = np.random.RandomState(123).permutation(20)[:2]
    assert keys["test"] == {f"training/image_2/{19 - video:06d}.png" for video in drawn}


def test_files_that_vanish_are_bad_records(tmp_path):
    for name, path in (("Food101", "food-101/images/waffles/1.jpg"), ("UCF101", "UCF-101/YoYo/v_YoYo_g01_c01.avi")):
        MAKERS[name](tmp_path)
        records = open_set(name, tmp_path, SAID[name][0])
        (tmp_path / path).unlink()
        with pytest.raises(BadRecord, match="cannot be read"):
            records.read(0)


def test_a_video_that_is_none(tmp_path):
    MAKERS["UCF101"](tmp_path)
    (tmp_path / "UCF-101/YoYo/v_YoYo_g01_c01.avi").write_bytes(b"RIFF, but no video")
    with pytest.raises(BadRecord, match="is no video"):
        open_set("UCF101", tmp_path, "test01").read(0)


def test_downloads_are_torchvisions(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        datasets.Food101, "_download", lambda self: asked.append(self.root) or MAKERS["Food101"](tmp_path)
    )
    download_set("Food101", tmp_path, "test")
    assert asked == [tmp_path]
    with pytest.raises(UserError, match=r"by hand, from https://www\.kaggle"):
        download_set("StanfordCars", tmp_path, "test")


def test_a_download_that_fails(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.EuroSAT, "download", fail)
    with pytest.raises(UserError, match=r"EuroSAT could not be fetched into .* \(no route to host\)"):
        download_set("EuroSAT", tmp_path, "test")
