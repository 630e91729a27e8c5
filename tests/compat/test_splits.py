"""Datasets without a val or test split, on MMF's main branch."""

import importlib
from types import MethodType

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmf_flava.compat.defects import splits
from mmf_flava.errors import UserError
from tests.mmf_versions import MMF_VERSION, needs_main

if MMF_VERSION == "main":
    from mmf.datasets.base_dataset_builder import BaseDatasetBuilder

pytestmark = needs_main


class Builder(*([BaseDatasetBuilder] if MMF_VERSION == "main" else [])):
    """A data module of lists with MMF's own dataloader methods; a missing split is None."""

    def __init__(self, **data):
        super().__init__("toys")
        self.config = OmegaConf.create({"shuffle": False})
        for split in ("train", "val", "test"):
            setattr(self, f"{split}_dataset", Samples(data[split], split) if split in data else None)


class Samples(list):
    dataset_name = "toys"

    def __init__(self, samples, split):
        super().__init__(samples)
        self.dataset_type = split


class OwnLoaders(*([BaseDatasetBuilder] if MMF_VERSION == "main" else [])):
    """A data module that builds its dataloaders itself, and leaves MMF's datasets None."""

    def train_dataloader(self):
        return DataLoader([1, 2])

    val_dataloader = test_dataloader = train_dataloader


@pytest.fixture
def multi(tmp_path, monkeypatch):
    """``multi(a=module, b=module)`` is MMF's MultiDataModule of these data modules."""
    from mmf.datasets.multi_datamodule import MultiDataModule

    settings = {"num_workers": 0, "batch_size": 2, "experiment_name": "run", "seed": 1, "max_epochs": None}
    config = {"training": settings, "env": {"save_dir": str(tmp_path), "report_dir": str(tmp_path)}}
    config |= {"run_type": "train_val", "model": "toy", "datasets": "a,b", "multitasking": {"type": "round_robin"}}
    registry.register("config", OmegaConf.create(config))
    monkeypatch.setattr("mmf.common.test_reporter.get_mmf_env", lambda key=None: str(tmp_path))

    def build(**modules):
        module = MultiDataModule.__new__(MultiDataModule)
        vars(module).update(config=registry.get("config"), datamodules=modules, dataset_list=list(modules))
        return module

    yield build
    registry.unregister("config")


def test_datasets_without_the_split_are_skipped(multi):
    module = multi(a=Builder(train=[1, 2], val=[3]), b=Builder(train=[4]))
    assert list(module._build_multi_dataloader("train").loaders) == ["a", "b"]
    assert list(module._build_multi_dataloader("val").loaders) == ["a"]
    assert len(module._build_multi_dataloader("test")) == 0
    assert list(module.datamodules) == module.dataset_list == ["a", "b"]


def test_data_module_with_its_own_loaders_is_kept(multi):
    module = multi(a=OwnLoaders("toys"), b=Builder(train=[4]))
    assert list(module._build_multi_dataloader("train").loaders) == ["a", "b"]
    assert list(module._build_multi_dataloader("val").loaders) == ["a"]
    assigned = Builder(train=[4])
    assigned.val_dataloader = MethodType(OwnLoaders.train_dataloader, assigned)
    assert list(multi(a=assigned)._build_multi_dataloader("val").loaders) == ["a"]


def test_complete_data_modules_are_passed_on_unchanged(multi):
    modules = {"a": OwnLoaders("toys")}
    module = multi(**modules)
    datamodules = module.datamodules
    module._build_multi_dataloader("val")
    assert module.datamodules is datamodules


def test_training_without_any_val_split_is_an_error(multi):
    module = multi(a=Builder(train=[1]), b=Builder(train=[4]))
    with pytest.raises(UserError, match=r"a, b has a val split.*List data in dataset_config\.NAME\.splits\.val"):
        module._build_multi_dataloader("val")


@pytest.fixture
def reporter_class(monkeypatch):
    """MMF's TestReporter, patched here: pytest's own import hook loads modules named test_*, without our patches."""
    module = importlib.import_module("mmf.common.test_reporter")
    monkeypatch.setattr(module.TestReporter, "__init__", module.TestReporter.__init__)
    splits.reporter(module)
    return module.TestReporter


def test_reporter_skips_datasets_without_the_split(multi, reporter_class):
    multi()
    modules = {"a": Builder(), "b": Builder(val=[3])}
    reporter = reporter_class(modules, OmegaConf.create(), "val")
    datasets = []
    while reporter.next_dataset(flush_report=False):
        datasets.append(list(reporter.get_dataloader().dataset))
    assert datasets == [[3]]
    with pytest.raises(UserError, match="a, b has a test split"):
        reporter_class(modules, OmegaConf.create(), "test")
