import pytest

from mmf_flava.data.buckets import LengthBuckets
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import MultitaskLoader

BATCH, WINDOW = 4, 3
LENGTHS = [5, 1, 9, 2, 8, 3, 7, 4, 6, 0, 11, 10]  # sample lengths in one window


def buckets(seed=0):
    return LengthBuckets(lambda n: LENGTHS[n % 12], BATCH, WINDOW, seed)


def test_samples_of_a_window_are_sorted_into_batches():
    batches = [list(buckets()[k]) for k in range(WINDOW)]
    assert sorted(sorted(LENGTHS[n] for n in batch) for batch in batches) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert sorted(n for batch in batches for n in batch) == list(range(12))
    assert sorted(n for k in range(3, 6) for n in buckets()[k]) == list(range(12, 24))


def test_order_of_batches_is_shuffled_in_each_window():
    def order(seed):
        stream = buckets(seed)
        return [LENGTHS[stream[k][0] % 12] // 4 for k in range(30)]

    assert order(0) == order(0) != order(1)
    assert len({tuple(order(0)[start : start + 3]) for start in range(0, 30, 3)}) > 2


class Captions:
    """A dataset whose sample n is n."""

    length_buckets = WINDOW

    def caption_bytes(self, n):
        return LENGTHS[n % 12]

    def __getitem__(self, n):
        return n

    def collate(self, samples):
        return samples


def take(count, start=0, **options):
    datasets = {"captions": Captions()}
    loader = MultitaskLoader(datasets, DatasetSchedule(datasets), BATCH, start_step=start, **options)
    found = [next(loader)[1] for _ in range(count)]
    loader.close()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_batches_do_not_depend_on_workers_ranks_and_resumes(workers, ranks):
    expected = [list(buckets()[k]) for k in range(8)]
    by_rank = [take(8, num_workers=workers, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert [[by_rank[n % ranks][k][n // ranks] for n in range(BATCH)] for k in range(8)] == expected
    assert take(3, start=5, num_workers=workers) == expected[5:]
