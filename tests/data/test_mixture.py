import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mmf_flava.data import mixture
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.mixture import Mixture
from mmf_flava.data.order import Order, Unit
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.views import CodebookViews

SIZES = (1000, 700, 301)
WEIGHTS = {"a": 1, "b": 0.5, "c": 2}  # 1000 + 350 + 602 samples per epoch


def mixture_of(sizes=SIZES, weights=WEIGHTS, seed=3, block=64, lanes=16):
    parts = [[Unit(first, 1, min(block, size - first)) for first in range(0, size, block)] for size in sizes]
    return Mixture(parts, weights, seed, lanes)


def stream(order, count, start=0):
    return [order.index(n) for n in range(start, start + count)]


@pytest.fixture(params=[64, 4096])
def slices(request, monkeypatch):
    monkeypatch.setattr(mixture, "SLICE_SIZE", request.param)


@pytest.mark.usefixtures("slices")
def test_record_counts_of_an_epoch_are_exact():
    order = mixture_of()
    assert order.size == 1952
    first, second = stream(order, 1952), stream(order, 1952, 1952)
    for epoch in (first, second):
        times = np.bincount(epoch, minlength=2001)
        assert (times[:1000] == 1).all()
        assert times[1000:1700].sum() == 350 and times[1000:1700].max() == 1
        assert (times[1700:] == 2).all()
    assert sorted(n for n in first + second if 1000 <= n < 1700) == list(range(1000, 1700)), (
        "the second epoch must use the other half"
    )
    assert first != second


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize(
    ("sizes", "weights"),
    [((7, 7), (0.5, 0.5)), ((3, 10), (0.1, 1.05)), ((5,), (1 / 3,)), ((1, 900), (0.3, 7.77)), ((9, 9, 9), (0.1,) * 3)],
)
def test_record_counts_differ_by_at_most_one_after_rounding(sizes, weights):
    order = mixture_of(sizes, dict(zip("abc", weights, strict=False)), block=4)
    assert order.size == sum(int(size * weight + 0.5) for size, weight in zip(sizes, weights, strict=True))
    for epochs in range(1, 7):
        expected = [int(epochs * size * weight + 0.5) for size, weight in zip(sizes, weights, strict=True)]
        times = np.bincount(stream(order, sum(expected)), minlength=sum(sizes))
        for count, records in zip(expected, np.split(times, np.cumsum(sizes)[:-1]), strict=True):
            assert records.sum() == count and records.max() - records.min() <= 1


def test_proportions_are_exact_in_every_slice_and_components_alternate(monkeypatch):
    monkeypatch.setattr(mixture, "SLICE_SIZE", 100)
    order = mixture_of(lanes=4)
    assert order.slices == 20
    components = np.searchsorted([1000, 1700], stream(order, order.size), side="right")
    for number in range(20):
        in_slice = components[round(number * 97.6) : round((number + 1) * 97.6)]
        for component, count in enumerate((50, 17.5, 30.1)):
            assert abs((in_slice == component).sum() - count) <= 2
    assert (np.diff(components) != 0).mean() > 0.4


def test_one_lane_reads_are_sequential_in_each_component():
    """With one lane, each component finishes a shard before it starts the next."""
    order = mixture_of(block=50, lanes=1)
    found = stream(order, order.size)
    for first, size in ((0, 1000), (1000, 700)):
        records = [n - first for n in found if first <= n < first + size]
        blocks = [n // 50 for n in records]
        assert sum(one != other for one, other in pairwise(blocks)) == len(records) // 50 - 1


def test_mixture_is_a_pure_function_of_seed_and_index():
    indices = [5000, 3, 77, 4999, 3, 1_234_567, 0]
    order = mixture_of()
    assert [order.index(n) for n in indices] == [mixture_of().index(n) for n in indices]
    assert [pickle.loads(pickle.dumps(order)).index(n) for n in indices] == [order.index(n) for n in indices]
    assert stream(mixture_of(seed=4), 50) != stream(order, 50)
    mixtures = mixture_of(lanes=1), mixture_of((*SIZES, 50), {**WEIGHTS, "d": 1}, lanes=1)
    of_first = [[n for n in stream(mix, 1000) if n < 1000][:400] for mix in mixtures]
    assert of_first[0] == of_first[1], "a new component must not change the record order of the others"


def test_components_of_equal_size_have_different_orders():
    found = stream(mixture_of((500, 500), {"a": 1, "b": 1}, block=500), 1000)
    assert [n for n in found if n < 500] != [n - 500 for n in found if n >= 500]


def test_seventy_million_records_need_little_memory():
    order = mixture_of((30_000_000, 40_000_000), {"a": 1, "b": 0.3}, block=1024)
    assert order.size == 42_000_000
    found = stream(order, 5000, 41_990_000)
    assert len(set(found)) == 5000 and 1400 < sum(n >= 30_000_000 for n in found) < 1500
    assert len(pickle.dumps(order)) < 2e6


class Ids:
    """A dataset whose sample n is its record index."""

    def __init__(self):
        self.order = mixture_of()

    def __getitem__(self, n):
        return self.order.index(n)

    def collate(self, samples):
        return samples


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0), (4, 1)])
def test_stream_does_not_depend_on_workers_and_ranks(ranks, workers):
    datasets = [{"ids": Ids()} for _ in range(ranks)]
    loaders = [
        MultitaskLoader(
            datasets[rank], DatasetSchedule(datasets[rank]), 16, num_workers=workers, rank=rank, world_size=ranks
        )
        for rank in range(ranks)
    ]
    batches = [[next(loader)[1] for _ in range(130)] for loader in loaders]  # more than an epoch
    for loader in loaders:
        loader.close()
    found = [n for number in range(130) for by_rank in batches for n in by_rank[number]]
    assert found == stream(mixture_of(), 130 * 16)


def test_lanes_of_a_component_are_a_divisor_that_fits_its_share():
    """Shares of 0.512, 0.179 and 0.308 of 16 lanes: 8.2, 2.9 and 4.9 lanes."""
    order = mixture_of()
    assert [part.lanes for part in order._orders] == [8, 2, 4]
    order.lanes = 1
    assert [part.lanes for part in order._orders] == [1, 1, 1]


def test_a_slot_reads_the_same_part_of_every_component():
    """In one epoch, a quarter of the slots reads about a quarter of the shards of each component."""
    sizes = (32_000, 16_000, 16_000)
    order = mixture_of(sizes, {"a": 1, "b": 1, "c": 1}, block=100, lanes=256)
    found = [order.index(n) for n in range(order.size) if 64 <= n % 256 < 128]
    for first, size in zip((0, 32_000, 48_000), sizes, strict=True):
        shards = {(n - first) // 100 for n in found if first <= n < first + size}
        assert size / 400 <= len(shards) <= 1.2 * size / 400 + 4


def test_empty_components_and_epochs_raise_an_error():
    with pytest.raises(UserError, match="b has no records"):
        mixture_of((5, 0), {"a": 1, "b": 1})
    with pytest.raises(UserError, match="no samples"):
        mixture_of((5, 5), {"a": 0.01, "b": 0.01})


@pytest.mark.parametrize("weight", [0, -1, "2", True, None, float("nan"), float("inf"), [1]])
def test_invalid_weight_raises_an_error(config, load, weight):
    config.dataset_config.pmd.splits.train = {"pairs/train": 1, "pairs/val": weight}
    message = r"^dataset_config\.pmd\.splits\.train(\.pairs/val: must be a number above 0|: must be finite)"
    with pytest.raises(UserError, match=message):
        load("pmd")


def test_missing_path_and_weights_outside_train_raise_an_error(config, load):
    config.dataset_config.pmd.splits = {"train": {"pairs/train": 1, "pairs/none": 1}}
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.splits\.train.*pairs/none"):
        load("pmd")
    config.dataset_config.pmd.splits.val = {"pairs/val": 1}
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.splits\.val: only the train split supports weights"):
        load("pmd", "val")


FOLDERS = {"pmd": "pairs", "imagenet": "images", "ccnews_bookcorpus": "text"}


@pytest.mark.parametrize("name", FOLDERS)
def test_datasets_accept_weights(config, load, name):
    paths = [f"{FOLDERS[name]}/{split}" for split in ("val", "train")]
    splits = config.dataset_config[name].splits
    splits.train = paths
    plain = load(name)
    assert isinstance(plain.order, Order) and len(plain) == plain.size
    expected = Order(plain.size, plain.seed, True, plain.order.units)
    assert stream(plain.order, 2 * plain.size) == stream(expected, 2 * plain.size), (
        "a list of paths must be shuffled without weights"
    )
    splits.train = dict(zip(paths, (2, 0.5), strict=True))
    dataset = load(name)
    first = len(load(name, "val"))
    assert dataset.size == plain.size
    assert len(dataset) == 2 * first + int((plain.size - first) / 2 + 0.5)
    times = Counter(stream(dataset.order, len(dataset)))
    assert all(times[n] == 2 for n in range(first)) and max(times[n] for n in range(first, dataset.size)) == 1
    ids = {plain[n].sample_id for n in range(plain.size)} if isinstance(dataset, ImageStreamDataset) else None
    if ids:  # records are numbered as in a list of paths, so its cached codes stay valid
        assert {dataset[n].sample_id for n in range(len(dataset))} < ids
        assert records_sha256(dataset.records) == records_sha256(plain.records)
        assert len(CodebookViews(dataset)) == plain.size
