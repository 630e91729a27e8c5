import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mmf_flava.cache_codes import Views
from mmf_flava.data import mixture
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.mixture import Mixture, Part, path_weights
from mmf_flava.data.order import Order
from mmf_flava.data.records import joined, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.shards import ShardReader, ShardWriter
from mmf_flava.data.turns import Turns
from mmf_flava.errors import UserError

SIZES = (1000, 700, 301)
WEIGHTS = {"a": 1, "b": 0.5, "c": 2}  # 1000 + 350 + 602 samples an epoch


def mixed(sizes=SIZES, weights=WEIGHTS, seed=3, block=64):
    return Mixture([Part(size, block) for size in sizes], weights, seed)


def stream(order, count, start=0):
    return [order.index(n) for n in range(start, start + count)]


@pytest.fixture(params=[64, 4096])
def slices(request, monkeypatch):
    monkeypatch.setattr(mixture, "SLICE", request.param)


@pytest.mark.usefixtures("slices")
def test_counts_of_an_epoch_are_exact():
    order = mixed()
    assert order.size == 1952
    first, second = stream(order, 1952), stream(order, 1952, 1952)
    for epoch in (first, second):
        times = np.bincount(epoch, minlength=2001)
        assert (times[:1000] == 1).all()
        assert times[1000:1700].sum() == 350 and times[1000:1700].max() == 1
        assert (times[1700:] == 2).all()
    assert sorted(n for n in first + second if 1000 <= n < 1700) == list(range(1000, 1700)), "each epoch another half"
    assert first != second


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize(
    ("sizes", "weights"),
    [((7, 7), (0.5, 0.5)), ((3, 10), (0.1, 1.05)), ((5,), (1 / 3,)), ((1, 900), (0.3, 7.77)), ((9, 9, 9), (0.1,) * 3)],
)
def test_where_rounding_matters_counts_stay_within_one(sizes, weights):
    order = mixed(sizes, dict(zip("abc", weights, strict=False)), block=4)
    assert order.size == sum(int(size * weight + 0.5) for size, weight in zip(sizes, weights, strict=True))
    for epochs in range(1, 7):
        shown = [int(epochs * size * weight + 0.5) for size, weight in zip(sizes, weights, strict=True)]
        times = np.bincount(stream(order, sum(shown)), minlength=sum(sizes))
        for count, own in zip(shown, np.split(times, np.cumsum(sizes)[:-1]), strict=True):
            assert own.sum() == count and own.max() - own.min() <= 1


def test_shares_are_exact_in_every_slice_and_parts_alternate(monkeypatch):
    monkeypatch.setattr(mixture, "SLICE", 100)
    order = mixed()
    assert order.slices == 20
    parts = np.searchsorted([1000, 1700], stream(order, order.size), side="right")
    for number in range(20):
        inside = parts[round(number * 97.6) : round((number + 1) * 97.6)]
        for part, share in enumerate((50, 17.5, 30.1)):
            assert abs((inside == part).sum() - share) <= 2
    assert (np.diff(parts) != 0).mean() > 0.4


def test_reads_stay_near_sequential_in_a_part():
    """At any time each part is inside one block of its shuffle."""
    order = mixed(block=50)
    found = stream(order, order.size)
    for first, size in ((0, 1000), (1000, 700)):
        own = [n - first for n in found if first <= n < first + size]
        blocks = [n // 50 for n in own]
        assert sum(one != other for one, other in pairwise(blocks)) == len(own) // 50 - 1


def test_it_is_pure():
    numbers = [5000, 3, 77, 4999, 3, 1_234_567, 0]
    order = mixed()
    assert [order.index(n) for n in numbers] == [mixed().index(n) for n in numbers]
    assert [pickle.loads(pickle.dumps(order)).index(n) for n in numbers] == [order.index(n) for n in numbers]
    assert stream(mixed(seed=4), 50) != stream(order, 50)
    with_one_more = mixed((*SIZES, 50), {**WEIGHTS, "d": 1})
    own = [[n for n in stream(mix, 1000) if n < 1000][:400] for mix in (order, with_one_more)]
    assert own[0] == own[1], "another part changes when a part's records come, not their order"


def test_parts_of_one_size_are_not_read_in_step():
    found = stream(mixed((500, 500), {"a": 1, "b": 1}, block=500), 1000)
    assert [n for n in found if n < 500] != [n - 500 for n in found if n >= 500]


def test_seventy_million_records_cost_no_memory():
    order = mixed((30_000_000, 40_000_000), {"a": 1, "b": 0.3}, block=1024)
    assert order.size == 42_000_000
    found = stream(order, 5000, 41_990_000)
    assert len(set(found)) == 5000 and 1400 < sum(n >= 30_000_000 for n in found) < 1500
    assert len(pickle.dumps(order)) < 2e6


class Ids:
    """Sample n is the number of its record."""

    def __init__(self):
        self.order = mixed()

    def __getitem__(self, n):
        return self.order.index(n)

    def collate(self, samples):
        return samples


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0), (4, 1)])
def test_workers_and_ranks_change_nothing(ranks, workers):
    datasets = [{"ids": Ids()} for _ in range(ranks)]
    loaders = [
        MultitaskLoader(datasets[rank], Turns(datasets[rank]), 16, num_workers=workers, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    batches = [[next(loader)[1] for _ in range(130)] for loader in loaders]  # more than an epoch
    for loader in loaders:
        loader.close()
    found = [batches[n % ranks][number][n // ranks] for number in range(130) for n in range(16)]
    assert found == stream(mixed(), 130 * 16)


def test_what_cannot_be_mixed():
    with pytest.raises(UserError, match="b has no records"):
        mixed((5, 0), {"a": 1, "b": 1})
    with pytest.raises(UserError, match="no samples"):
        mixed((5, 5), {"a": 0.01, "b": 0.01})
    assert path_weights({}, "pmd", "train") is None
    assert path_weights({"splits": {"train": ["a"], "val": None}}, "pmd", "val") is None


@pytest.mark.parametrize("weight", [0, -1, "2", True, None, float("nan"), float("inf"), [1]])
def test_what_is_no_weight_is_named(config, load, weight):
    config.dataset_config.pmd.splits.train = {"pairs/train": 1, "pairs/val": weight}
    with pytest.raises(UserError, match=r"^dataset_config\.pmd\.splits\.train\.pairs/val is .* a number above 0"):
        load("pmd")


def test_paths_and_splits_that_take_no_weights(config, load):
    config.dataset_config.pmd.splits = {"train": {"pairs/train": 1, "pairs/none": 1}, "val": {"pairs/val": 1}}
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.splits\.train.*pairs/none"):
        load("pmd")
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.splits\.val has weights"):
        load("pmd", "val")


FOLDERS = {"pmd": "pairs", "imagenet": "images", "ccnews_bookcorpus": "text"}


@pytest.mark.parametrize("name", FOLDERS)
def test_datasets_take_weights(config, load, name):
    paths = [f"{FOLDERS[name]}/{split}" for split in ("val", "train")]
    splits = config.dataset_config[name].splits
    splits.train = paths
    plain = load(name)
    assert isinstance(plain.order, Order) and len(plain) == plain.size
    expected = Order(plain.size, plain.seed, True, plain.order.block_size)
    assert stream(plain.order, 2 * plain.size) == stream(expected, 2 * plain.size), "the list form is as it was"
    splits.train = dict(zip(paths, (2, 0.5), strict=True))
    dataset = load(name)
    first = len(load(name, "val"))
    assert dataset.size == plain.size
    assert len(dataset) == 2 * first + int((plain.size - first) / 2 + 0.5)
    times = Counter(stream(dataset.order, len(dataset)))
    assert all(times[n] == 2 for n in range(first)) and max(times[n] for n in range(first, dataset.size)) == 1
    ids = {plain[n].sample_id for n in range(plain.size)} if isinstance(dataset, ImageStreamDataset) else None
    if ids:  # records have the numbers of the list form, and codes that were cached for it fit
        assert {dataset[n].sample_id for n in range(len(dataset))} < ids
        assert records_sha256(dataset.records) == records_sha256(plain.records)
        assert len(Views(dataset, 0)) == plain.size


def test_neighbouring_shards_come_under_one_reader(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/1.png").touch()
    for n in range(4):
        with ShardWriter(tmp_path / f"{n}.tar") as shard:
            shard.write(str(n), {"txt": b""})
    paths = [tmp_path / name for name in ("0.tar", "1.tar", "folder", "2.tar", "3.tar")]
    records = joined([open_records(path) for path in paths])
    assert [type(reader) for reader in records.readers][::2] == [ShardReader, ShardReader]
    assert [records.read(n, ()).key for n in range(5)] == ["0", "1", "1.png", "2", "3"]
    assert isinstance(joined([open_records(path) for path in paths[:2]]), ShardReader)
