"""The ordered stream of sample ids is one and the same for any workers, ranks and resumes."""

import pytest

from mmf_flava.data.order import Order
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.turns import Turns

BATCH = 16
SIZES = (117, 4096, 10007)


class Ids:
    """Sample n is the number of its record."""

    def __init__(self, size):
        self.order = Order(size, seed=5, block_size=100)

    def __getitem__(self, n):
        return self.order.index(n)

    def collate(self, samples):
        return samples


def loader(size, **more):
    datasets = {"ids": Ids(size)}
    return MultitaskLoader(datasets, Turns(datasets), BATCH, **more)


def take(loader, count):
    return [next(loader)[1] for _ in range(count)]


def batches(size):
    """Global batches that show the whole of epoch 0 and begin epoch 1."""
    return -(-size // BATCH) + 2


@pytest.mark.parametrize("size", SIZES)
def test_an_epoch_has_every_record_once_and_drops_none(size):
    stream = [n for batch in take(loader(size), batches(size)) for n in batch]
    assert sorted(stream[:size]) == list(range(size))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_workers_change_nothing(size, workers):
    whole = take(loader(size), batches(size))
    other = loader(size, num_workers=workers)
    assert take(other, batches(size)) == whole
    other.close()


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_ranks_share_the_same_global_batches(size, ranks):
    shares = [take(loader(size, rank=rank, world_size=ranks), batches(size)) for rank in range(ranks)]
    for number, batch in enumerate(take(loader(size), batches(size))):
        assert [shares[n % ranks][number][n // ranks] for n in range(BATCH)] == batch


@pytest.mark.parametrize("size", SIZES)
def test_three_resumes_inside_an_epoch_and_one_at_its_end(size):
    whole, found, state = take(loader(size), batches(size)), [], None
    end = size // BATCH  # the last whole batch of epoch 0
    stops = [end // 4, end // 2, 3 * end // 4, end]
    for start, stop in zip([0, *stops], [*stops, len(whole)], strict=True):
        part = loader(size)
        if state is not None:
            part.load_state_dict(state)
        found += take(part, stop - start)
        state = part.state_dict()
    assert found == whole
