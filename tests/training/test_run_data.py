import contextlib
from types import SimpleNamespace

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.run import MultitaskingConfig, TrainingConfig
from mmf_flava.data.order import Order
from mmf_flava.errors import UserError
from mmf_flava.training import run_data
from mmf_flava.training.run_data import RunData
from mmf_flava.training.settings import Settings


class Records:
    """A training split of 1,000 records."""

    def __init__(self):
        self.order = Order(1000)

    def __len__(self):
        return 1000


@pytest.fixture
def open_loader(monkeypatch):
    """Return ``open_loader(batch_size, lanes)``, which returns the loader's lanes and the logged messages."""
    messages = []
    registry.register("config", OmegaConf.create({"training": {}, "datasets": "toy"}))
    monkeypatch.setattr(run_data.mmf_api, "log", messages.append)

    def open_loader(batch_size, lanes=256):
        data = RunData.__new__(RunData)
        data._seed, data.datasets = 1, {"train": {"toy": Records()}}
        section = SimpleNamespace(batch_size=batch_size, num_workers=0, pin_memory=False, seed=1)
        settings = Settings(TrainingConfig(lanes=lanes), None, None, MultitaskingConfig(), ["toy"])
        loader = data._open_loader(section, settings)
        assert data.datasets["train"]["toy"].order.lanes == loader.lanes
        return loader.lanes, messages

    return open_loader


@pytest.mark.parametrize(
    ("batch_size", "lanes", "expected"), [(512, 256, 256), (512, 512, 512), (48, 256, 16), (225, 225, 225)]
)
def test_lanes_are_the_largest_common_divisor(open_loader, batch_size, lanes, expected):
    assert open_loader(batch_size, lanes) == (expected, [])


def test_few_lanes_are_reported(open_loader):
    lanes, messages = open_loader(225)
    assert lanes == 1 and "only 1 places" in messages[0] and "Set training.lanes=225" in messages[0]


def test_batch_larger_than_the_dataset_raises(open_loader):
    with pytest.raises(UserError, match=r"training\.batch_size is 1024, but dataset 'toy' has only 1000"):
        open_loader(1024)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"train": {"toy": Records()}, "val": {}, "test": {}}, None),
        (
            {"train": {}, "val": {}, "test": {}},
            r"^dataset_config.toy.splits.train: rank 0 on a has 1,000 records \(1,000 samples\), rank 1 on b has 0 "
            r"records \(0 samples\). Give all processes the same files.$",
        ),
    ],
)
def test_processes_with_other_files_are_refused(other, message, monkeypatch):
    data = RunData.__new__(RunData)
    gathered = []
    monkeypatch.setattr(run_data, "gather_objects", lambda value: [*gathered, value])
    monkeypatch.setattr(run_data.socket, "gethostname", lambda: "b" if gathered else "a")
    data.datasets = {"train": {"toy": Records()}, "val": {}, "test": {}}
    data._compare_sizes()
    gathered.append(("a", {"dataset_config.toy.splits.train": (1000, 1000)}))
    data.datasets = other
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        data._compare_sizes()


@pytest.mark.parametrize(("section", "expected"), [({"fast_read": False}, {"fast_read": True}), ({}, {})])
def test_fast_read_is_set_in_the_sections_of_datasets_that_read_it(section, expected, monkeypatch):
    built = OmegaConf.create(section)
    monkeypatch.setattr(run_data.mmf_api, "build_dataset", lambda name, section, split: None)
    data = RunData.__new__(RunData)
    data._seed, data._fast_read = 1, True
    assert data._build("toy", built, "train") is None and built == expected
