"""Tests of the datasets as built by MMF: registered builders, the default YAML and the demo data."""

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from mmf.common.sample import Sample
from omegaconf import OmegaConf

from mmf_flava.config.dataset_base import StreamConfig
from mmf_flava.data.order import spread_units
from mmf_flava.data.prepare.demo import read_manifest
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError

from .conftest import NAMES


def assert_samples_equal(one, other):
    assert one.keys() == other.keys()
    for field, value in one.items():
        equal = torch.equal(value, other[field]) if isinstance(value, torch.Tensor) else value == other[field]
        assert equal, field


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_a_pure_function_of_their_index(load, name):
    one, other = load(name), load(name)
    indices = [0, 7, len(one) - 1, len(one), 3 * len(one) + 5]
    forward = [one[n] for n in indices]
    backward = [other[n] for n in reversed(indices)]
    for first, second in zip(forward, reversed(backward), strict=True):
        assert isinstance(first, Sample)
        assert_samples_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_every_epoch_has_each_record_once_in_a_new_order(load, name):
    dataset = load(name)
    size = len(dataset)
    epochs = [[dataset.order.index(epoch * size + n) for n in range(size)] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(size))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_in_file_order_and_epochs_are_identical(load, name):
    dataset = load(name, "val")
    assert [dataset.order.index(n) for n in range(5)] == list(range(5))
    assert_samples_equal(dataset[3], dataset[3 + len(dataset)])


def test_unlisted_split_is_none_or_an_error(config, load):
    assert load("imagenet", "test") is None
    config.dataset_config.imagenet.splits.train = []
    with pytest.raises(UserError, match=r"imagenet\.splits\.train: no paths are listed"):
        load("imagenet", "train")
    registry.register("config", OmegaConf.create({"run_type": "val"}))
    assert load("imagenet", "train") is None
    registry.unregister("config")


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_raise_an_error(config, load, name, tmp_path):
    config.dataset_config[name].data_dir = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"dataset_config\.{name}\.splits\.train.*nowhere.*Expected"):
        load(name)


def test_build_demo_creates_missing_data(config, load, tmp_path):
    config.dataset_config.imagenet.data_dir = str(tmp_path / "new")
    config.dataset_config.imagenet.build = "demo"
    assert len(load("imagenet")) == 1300
    assert read_manifest(tmp_path / "new")
    config.dataset_config.imagenet.splits.train = ["misspelt"]
    with pytest.raises(UserError, match=r"misspelt.*data\.prepare demo --out"):
        load("imagenet")
    config.dataset_config.imagenet.build = "moon"
    with pytest.raises(UserError, match="moon"):
        load("imagenet")


def test_dataset_uses_the_training_seed(load):
    registry.register("config", OmegaConf.create({"training": {"seed": 5}}))
    try:
        seeded = load("imagenet")
    finally:
        registry.unregister("config")
    assert (seeded.seed, load("imagenet").seed) == (5, 0)
    assert seeded[0].sample_id != load("imagenet")[0].sample_id


class Numbers(StreamDataset):
    """A dataset of numbers; records in ``bad`` are unusable."""

    def __init__(self, bad, dataset_type="val", size=10):
        super().__init__("numbers", StreamConfig(data_dir=""), dataset_type, [spread_units(size)])
        self.bad = bad

    def _sample(self, index, rng):
        if index in self.bad:
            raise BadRecord(Reason.NO_IMAGE, f"number {index}")
        return {"sample_id": str(index), "value": int(rng.integers(10**9))}


def test_bad_record_is_replaced_by_the_next_good_one():
    dataset = Numbers({3, 4, 9})
    sample_ids = [dataset[n]["sample_id"] for n in range(10)]
    assert sample_ids == ["0", "1", "2", "5", "5", "5", "6", "7", "8", "0"]
    assert [[entry["record"] for entry in dataset[n]["replaced"]] for n in (2, 3, 4, 9)] == [[], [3, 4], [4], [9]]
    expected = {"sample_id": "record 4", "record": 4, "reason": "no image", "message": "number 4"}
    assert dataset[4]["replaced"] == [expected]
    assert dataset[3] == Numbers({3, 4})[3]


@pytest.mark.parametrize("fraction", [-0.1, 1.5, "all"])
def test_invalid_max_bad_share_raises_an_error(config, load, fraction):
    config.dataset_config.pmd.max_bad_share = fraction
    with pytest.raises(UserError, match="max_bad_share"):
        load("pmd")


def test_replacement_skips_a_lost_shard_of_a_thousand_records():
    dataset = Numbers(set(range(1000)), size=5000)
    sample = dataset[0]
    assert int(sample["sample_id"]) >= 1000 and sample["replaced"][-1]["record"] < 1000
    assert len(sample["replaced"]) < 30
    assert Numbers(set(range(99)), size=100)[0]["sample_id"] == "99", "a small dataset must be tried completely"


def test_only_bad_records_raise_an_error():
    with pytest.raises(UserError, match="10 consecutive records"):
        Numbers(set(range(10)))[0]


def test_negative_index_raises_an_error():
    with pytest.raises(IndexError):
        Numbers(set())[-1]
    assert Numbers(set())[np.int64(2)]["sample_id"] == "2"


def test_missing_processor_raises_an_error(config, load):
    config.dataset_config.pmd.processors.text_processor = None
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.processors\.text_processor: must be given"):
        load("pmd")


@pytest.mark.parametrize("name", NAMES)
def test_builder_finds_its_default_yaml(name):
    path = registry.get_builder_class(name).config_path()
    assert list(OmegaConf.load(path).dataset_config) == [name]
