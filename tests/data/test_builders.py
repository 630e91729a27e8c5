"""Datasets of MMF's builders as streams: ``fast_read``, and the data loaders of builders on MMF's main branch."""

import random
from types import SimpleNamespace

import pytest
import torch
from mmf.common.registry import registry
from mmf.common.sample import Sample
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from mmf.datasets.builders.vqa2.dataset import VQA2Dataset
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmf_flava.compat import mmf_api
from mmf_flava.data.global_generators import seeded_generators
from mmf_flava.data.map_stream import MapStream
from tests.data.test_map_stream import Augmented, draw
from tests.mmf_versions import needs_main


@pytest.fixture
def build(monkeypatch):
    """Return ``build(builder, split="train")``, which registers a builder class and builds the stream of a split."""

    def build(builder: type, split: str = "train") -> MapStream:
        monkeypatch.setitem(registry.mapping["builder_name_mapping"], "own", builder)
        with seeded_generators(3, 0):
            dataset = mmf_api.build_dataset("own", OmegaConf.create({"key": 1}), split)
        return MapStream.of(dataset, "own", split, 3)

    return build


class Builder(BaseDatasetBuilder):
    """Builder of a user's dataset."""

    def __init__(self):
        super().__init__("own")

    def build(self, *args, **kwargs):
        pass

    def load(self, *args, **kwargs):
        return Augmented()

    def update_registry_for_model(self, config):
        pass


class Cached(VQA2Dataset):
    """Six samples with random numbers, which ``fast_read`` caches."""

    def __init__(self):
        self._dataset_name, self._dataset_type, self._should_fast_read = "own", "train", True
        self.annotation_db, self.writer = range(6), SimpleNamespace(write=print)

    def init_processors(self):
        pass

    def load_item(self, idx):
        return Sample({"noise": draw()})


class CachedBuilder(Builder):
    def load(self, *args, **kwargs):
        return Cached()


def test_cached_samples_do_not_depend_on_other_random_numbers(build):
    first = build(CachedBuilder)
    draw()
    state = random.getstate()
    second = build(CachedBuilder)
    assert random.getstate() == state
    noise = torch.stack([first[n]["noise"] for n in range(12)])
    assert torch.equal(noise, torch.stack([second[n]["noise"] for n in range(12)]))
    assert len(noise.unique(dim=0)) == 6


def collate_own(samples):
    return {"double": torch.stack([2 * sample["index"] for sample in samples])}


class OwnLoader(Builder):
    def build_dataloader(self, dataset, dataset_type, *args, **kwargs):
        assert self.config.key == 1
        return DataLoader(dataset, batch_size=2, collate_fn=collate_own)


class OwnTestLoader(Builder):
    def test_dataloader(self):
        return DataLoader(self.test_dataset, batch_size=2, collate_fn=collate_own)


@needs_main
@pytest.mark.parametrize(
    ("builder", "split", "own"),
    [(OwnLoader, "train", True), (OwnTestLoader, "test", True), (OwnTestLoader, "val", False)],
)
def test_builder_with_its_own_loader_collates(build, builder, split, own):
    stream = build(builder, split)
    batch = stream.collate([stream[0], stream[1]])
    assert (batch["dataset_name"], batch["dataset_type"]) == ("own", split)
    assert ("double" in batch, "noise" in batch) == (own, not own)


@needs_main
def test_data_modules_of_lightning_are_builders(build):
    from pytorch_lightning import LightningDataModule

    class Module(LightningDataModule):
        def prepare_data(self, config):
            self.prepared = config.key

        def setup(self, stage=None, config=None):
            self.dataset = Augmented(self.prepared + config.key)

        def train_dataloader(self):
            return DataLoader(self.dataset, batch_size=2, collate_fn=collate_own)

    stream = build(Module)
    assert len(stream) == 2 and "double" in stream.collate([stream[0]])
    assert build(Module, "test") is None
