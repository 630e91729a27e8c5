"""Tests that the stream of sample ids does not depend on the number of workers, ranks and resumes."""

import pytest

from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.order import Order, Unit
from mmf_flava.data.sampling import MultitaskLoader

BATCH = 16
SIZES = (117, 4096, 10007)


class Ids:
    """A dataset whose sample n is its record index."""

    def __init__(self, size):
        units = [Unit(first, 1, min(100, size - first)) for first in range(0, size, 100)]
        self.order = Order(size, seed=5, units=units)

    def __getitem__(self, n):
        return self.order.index(n)

    def collate(self, samples):
        return samples


def loader(size, **options):
    datasets = {"ids": Ids(size)}
    return MultitaskLoader(datasets, DatasetSchedule(datasets), BATCH, **options)


def take(loader, count):
    return [next(loader)[1] for _ in range(count)]


def batches(size):
    """Return the number of global batches that cover epoch 0 and start epoch 1."""
    return -(-size // BATCH) + 2


@pytest.mark.parametrize("size", SIZES)
def test_epoch_has_every_record_exactly_once(size):
    stream = [n for batch in take(loader(size), batches(size)) for n in batch]
    assert sorted(stream[:size]) == list(range(size))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_stream_does_not_depend_on_workers(size, workers):
    expected = take(loader(size), batches(size))
    other = loader(size, num_workers=workers)
    assert take(other, batches(size)) == expected
    other.close()


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_ranks_partition_the_same_global_batches(size, ranks):
    by_rank = [take(loader(size, rank=rank, world_size=ranks), batches(size)) for rank in range(ranks)]
    for number, batch in enumerate(take(loader(size), batches(size))):
        assert [n for batches in by_rank for n in batches[number]] == batch


@pytest.mark.parametrize("size", SIZES)
def test_resuming_within_and_at_the_end_of_an_epoch_continues_the_stream(size):
    expected, found, state = take(loader(size), batches(size)), [], None
    end = size // BATCH  # the last complete batch of epoch 0
    stops = [end // 4, end // 2, 3 * end // 4, end]
    for start, stop in zip([0, *stops], [*stops, len(expected)], strict=True):
        resumed = loader(size)
        if state is not None:
            resumed.load_state_dict(state)
        found += take(resumed, stop - start)
        state = resumed.state_dict()
    assert found == expected
