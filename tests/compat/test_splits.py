"""On MMF's main branch, datasets without a val or test split."""

import importlib
from types import SimpleNamespace

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmf_flava.compat import splits
from mmf_flava.errors import UserError
from tests.lines import needs_main

pytestmark = needs_main


def datamodule(**data):
    """A data module of lists; a split that is not given is None, and its loader an error, as MMF's is."""
    module = SimpleNamespace(dataset_name="toys")
    for split in ("train", "val", "test"):
        setattr(module, f"{split}_dataset", data.get(split))
        setattr(module, f"{split}_dataloader", lambda split=split: DataLoader(data[split]))
    return module


@pytest.fixture
def multi(tmp_path, monkeypatch):
    """``multi(a=module, b=module)``: MMF's module of these modules."""
    from mmf.datasets.multi_datamodule import MultiDataModule

    settings = {"num_workers": 0, "batch_size": 2, "experiment_name": "run", "seed": 1, "max_epochs": None}
    config = {"training": settings, "env": {"save_dir": str(tmp_path), "report_dir": str(tmp_path)}}
    config |= {"run_type": "train_val", "model": "toy", "datasets": "a,b", "multitasking": {"type": "round_robin"}}
    registry.register("config", OmegaConf.create(config))
    monkeypatch.setattr("mmf.common.test_reporter.get_mmf_env", lambda key=None: str(tmp_path))

    def build(**modules):
        found = MultiDataModule.__new__(MultiDataModule)
        vars(found).update(config=registry.get("config"), datamodules=modules, dataset_list=list(modules))
        return found

    yield build
    registry.unregister("config")


def test_loaders_are_of_the_datasets_that_have_the_split(multi):
    module = multi(a=datamodule(train=[1, 2], val=[3]), b=datamodule(train=[4]))
    assert list(module._build_multi_dataloader("train").loaders) == ["a", "b"]
    assert list(module._build_multi_dataloader("val").loaders) == ["a"]
    assert len(module._build_multi_dataloader("test")) == 0
    assert list(module.datamodules) == module.dataset_list == ["a", "b"]


def test_training_without_any_val_split_is_refused(multi):
    module = multi(a=datamodule(train=[1]), b=datamodule(train=[4]))
    with pytest.raises(UserError, match=r"a, b has a val split.*dataset_config\.NAME\.splits\.val"):
        module._build_multi_dataloader("val")


@pytest.fixture
def reporter_class(monkeypatch):
    """MMF's TestReporter, cured here: pytest itself loads modules that are named test_*, past all hooks."""
    module = importlib.import_module("mmf.common.test_reporter")
    monkeypatch.setattr(module.TestReporter, "__init__", module.TestReporter.__init__)
    splits.reporter(module)
    return module.TestReporter


def test_the_reporter_walks_through_those_that_have_the_split(multi, reporter_class):
    multi()
    modules = {"a": datamodule(), "b": datamodule(val=[3])}
    reporter = reporter_class(modules, OmegaConf.create(), "val")
    walked = []
    while reporter.next_dataset(flush_report=False):
        walked.append(reporter.get_dataloader().dataset)
    assert walked == [[3]]
    with pytest.raises(UserError, match="a, b has a test split"):
        reporter_class(modules, OmegaConf.create(), "test")
