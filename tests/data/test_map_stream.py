"""Map-style datasets as streams, which do not depend on workers, processes, restarts and other random numbers."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmf.common.batch_collator import BatchCollator
from mmf.common.registry import registry
from mmf.common.sample import Sample
from mmf.datasets.base_dataset import BaseDataset
from mmf.datasets.concat_dataset import MMFConcatDataset
from omegaconf import OmegaConf
from torch.utils.data import Dataset, IterableDataset, Subset

from mmf_flava.data.map_stream import MapStream, prepare_batch
from mmf_flava.data.order import Order
from mmf_flava.data.sampling import MultitaskLoader, build_evaluation_loader
from mmf_flava.errors import UserError
from tests.data.test_mmf_entries import Annotations, fails

CPU = torch.device("cpu")


def draw() -> torch.Tensor:
    """Return a number of each global generator."""
    return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


class Augmented(Dataset):
    """A user's dataset with samples that draw from all global generators."""

    def __init__(self, size: int = 11):
        self.size, self.classes = size, ("cat", "dog")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        if index >= self.size:
            raise IndexError(index)
        return {"index": torch.tensor(index), "noise": draw()}


class Schedule:
    names = ("own",)

    def dataset_at(self, step: int) -> str:
        return "own"


def stream_of(dataset, split: str = "train", name: str = "own", seed: int = 3):
    return MapStream.of(dataset, name, split, seed)


def train_batches(count: int, state: dict | None = None, dataset=None, **options) -> list[torch.Tensor]:
    """Return the noise of the next batches of 4 samples of one process."""
    loader = MultitaskLoader({"own": stream_of(dataset or Augmented())}, Schedule(), 4, **options)
    if state:
        loader.load_state_dict(state)
    try:
        batches = [next(loader)[1] for _ in range(count)]
    finally:
        loader.close()
    return [torch.cat([batch["index"][:, None], batch["noise"]], 1) for batch in batches]


def test_samples_do_not_depend_on_workers_processes_restarts_and_other_random_numbers():
    expected = torch.stack(train_batches(6))
    draw()
    assert expected.unique(dim=0).shape == expected.shape  # other noise in every epoch
    assert torch.equal(torch.stack(train_batches(6, num_workers=2)), expected)
    parts = [torch.stack(train_batches(6, rank=rank, world_size=2)) for rank in range(2)]
    assert torch.equal(torch.cat(parts, 1).sort(1).values, expected.sort(1).values)
    state = {"batch_size": 4, "lanes": 4, "draws": 4, "samples": {"own": 16}}
    assert torch.equal(torch.stack(train_batches(2, state)), expected[4:])


def test_every_epoch_of_training_contains_each_sample_once():
    stream = stream_of(Augmented())
    indices = [int(stream[n]["index"]) for n in range(22)]
    assert sorted(indices[:11]) == sorted(indices[11:]) == list(range(11)) and indices[:11] != indices[11:]
    assert indices == [Order(11, 3).index(n) for n in range(22)]
    with pytest.raises(IndexError, match="at least 0, got -1"):
        stream[-1]


def test_noise_differs_between_samples_seeds_and_datasets():
    streams = [stream_of(Augmented()), stream_of(Augmented(), name="other"), stream_of(Augmented(), seed=4)]
    noise = torch.stack([stream[n]["noise"] for stream in streams for n in range(3)])
    assert len(noise.unique(dim=0)) == 9


def test_evaluation_repeats_each_epoch_in_file_order():
    stream = stream_of(Augmented(), "val")
    first, second = ([stream[n] for n in range(start, start + 11)] for start in (0, 11))
    assert [int(sample["index"]) for sample in first] == list(range(11))
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("index", [0, 20])
def test_reading_keeps_the_state_of_the_global_generators(index):
    generators = random.getstate(), torch.get_rng_state()
    np.random.seed(5)
    np.random.randn()  # numpy keeps the second number of a pair
    stream = MapStream(Augmented(), "own", "val", 3)
    if index:
        stream.order = Order(21, shuffle=False)
        with pytest.raises(RuntimeError, match="sample 20 cannot be read"):
            stream[index]
    else:
        stream[index]
    assert random.getstate() == generators[0] and torch.equal(torch.get_rng_state(), generators[1])
    second = np.random.randn()
    np.random.seed(5)
    assert np.random.randn(2)[1] == second


def test_streams_are_left_unchanged_and_splits_without_samples_are_missing():
    stream = stream_of(Augmented())
    assert stream_of(None) is None and stream_of(Augmented(0)) is None
    assert (len(stream), stream.size, stream.classes, stream.dataset_name) == (11, 11, ("cat", "dog"), "own")
    assert pickle.loads(pickle.dumps(stream))[5]["noise"].equal(stream[5]["noise"])
    with pytest.raises(AttributeError):
        stream.unknown  # noqa: B018


def test_iterable_datasets_are_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            yield {}

    class NoLength(Dataset):
        def __getitem__(self, index):
            return {}

    for dataset in (Endless(), NoLength()):
        with pytest.raises(UserError, match=r"^datasets: 'own' is an iterable dataset, .*training\.trainer"):
            stream_of(dataset)


def test_sample_of_a_users_dataset_must_not_be_none():
    with pytest.raises(UserError, match=r"dataset own \(val\): sample 1 is None"):
        MapStream.of([{"a": 1}, None], "own", "val", 0)[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_users_dataset_name_the_dataset(workers):
    class Own(Augmented):
        def __getitem__(self, index):
            raise KeyError("no such column")

    with pytest.raises(
        RuntimeError, match=r"dataset own \(train\): sample \d+ cannot be read \(KeyError: 'no such col"
    ):
        train_batches(1, dataset=Own(), num_workers=workers)


@pytest.mark.parametrize("error", [UserError("recipe"), MemoryError()])
def test_errors_that_no_sample_causes_pass_through(error):
    class Own(Augmented):
        def __getitem__(self, index):
            raise error

    with pytest.raises(type(error)):
        stream_of(Own())[0]


class Memes(Annotations):
    """MMF's dataset of 10 entries, of which entries 3, 4 and 9 are bad."""

    __module__ = "mmf.datasets"

    def __init__(self, size: int = 10):
        super().__init__(size, fails(3, 4, 9))

    def __getitem__(self, index: int) -> Sample:
        super().__getitem__(index)
        return Sample({"index": torch.tensor(index), "noise": draw()})


def test_bad_entries_of_mmf_are_replaced_in_training_and_left_out_of_evaluations():
    stream = stream_of(Memes(), name="toy")
    batch = stream.collate([stream[n] for n in range(10)])
    listed = {entry["record"] for entries in batch["replaced"] for entry in entries}
    assert listed == {3, 4, 9} and not listed & set(batch["index"].tolist())
    assert (batch["dataset_name"], batch["dataset_type"]) == ("toy", "train")
    batches = list(build_evaluation_loader(stream_of(Memes(), "val", "toy"), 5))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [5, 6, 7, 8]]
    assert [[bool(entry) for entry in batch["left_out"]] for batch in batches] == [
        [False, False, False, True, True],
        [False, False, False, False, True],
    ]
    assert "replaced" not in batches[0]


def test_samples_of_mmf_do_not_depend_on_the_entries_that_are_probed_first():
    first, second = stream_of(Memes(), name="toy"), stream_of(Memes(), name="toy")
    first[0]
    assert torch.equal(first[5]["noise"], second[5]["noise"])


def test_concatenations_and_subsets_are_streams():
    parts = MMFConcatDataset([Memes(), Memes()])
    batch = next(iter(build_evaluation_loader(stream_of(parts, "val", "toy"), 20)))
    assert batch["index"].tolist() == [0, 1, 2, 5, 6, 7, 8] * 2
    assert [entry["record"] for entry in batch["left_out"] if entry] == [3, 4, 9, 13, 14, 19]
    subset = stream_of(Subset(Augmented(), [7, 5, 2]))
    assert sorted(int(subset[n]["index"]) for n in range(3)) == [2, 5, 7]


def test_collation_is_that_of_mmf():
    samples = [Sample({"text": torch.arange(3), "name": "a", "info": Sample({"size": 1})}) for _ in range(2)]
    expected, found = BatchCollator("own", "val")(samples), stream_of(Augmented(), "val").collate(samples)
    assert type(found) is type(expected) and list(found) == list(expected)
    assert torch.equal(found.pop("text"), expected.pop("text")) and found == expected


class Prepared(BaseDataset):
    """A user's dataset with its own ``prepare_batch``."""

    def __init__(self) -> None:
        super().__init__("own", OmegaConf.create({}), "train")
        self.prepared = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return Sample({"value": torch.tensor(1.0)})

    def prepare_batch(self, batch):
        self.prepared += 1
        batch["value"] = batch["value"] + 1
        return super().prepare_batch(batch)


def test_the_users_prepare_batch_is_called_once():
    registry.register("current_device", CPU)
    dataset = Prepared()
    stream = stream_of(dataset)
    batch = prepare_batch(stream, stream.collate([stream[0], stream[1]]), CPU)
    assert (dataset.prepared, batch["value"].tolist()) == (1, [2, 2])
    plain = stream_of(Augmented())
    assert prepare_batch(plain, plain.collate([plain[0]]), torch.device("meta"))["index"].is_meta


@pytest.mark.parametrize(("trainer", "listed"), [("flava", 0), ("mmf", 1)])
def test_prepare_batch_lists_bad_entries_only_for_other_trainers(trainer, listed, tmp_path, monkeypatch):
    config = {"datasets": "toy", "dataset_config": {"toy": {"max_bad_share": 0.5}}, "training": {"trainer": trainer}}
    registry.register("config", OmegaConf.create(config))
    monkeypatch.setattr("mmf_flava.compat.mmf_api.save_dir", lambda: str(tmp_path))
    monkeypatch.setattr(Memes, "prepare_batch", lambda self, batch: batch, raising=False)
    stream = stream_of(Memes(), name="toy")
    assert stream.max_bad_share == 0.5
    prepare_batch(stream, stream.collate([stream[n] for n in range(10)]), CPU)
    assert len(list(tmp_path.glob("quarantine.jsonl"))) == listed
