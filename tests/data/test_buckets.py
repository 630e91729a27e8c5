import pytest

from mmf_flava.data.buckets import LengthBuckets
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import MultitaskLoader

BATCH, WINDOW = 4, 3
LENGTHS = [5, 1, 9, 2, 8, 3, 7, 4, 6, 0, 11, 10]  # sample lengths in one window


def buckets(seed=0, lanes=1):
    return LengthBuckets(lambda n: LENGTHS[n % 12], BATCH, WINDOW, seed, lanes)


def batch(stream, k):
    return [n for slot in range(stream.lanes) for n in stream.samples(k, slot)]


def test_samples_of_a_window_are_sorted_into_batches():
    batches = [batch(buckets(), k) for k in range(WINDOW)]
    assert sorted(sorted(LENGTHS[n] for n in samples) for samples in batches) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert sorted(n for samples in batches for n in samples) == list(range(12))
    assert sorted(n for k in range(3, 6) for n in batch(buckets(), k)) == list(range(12, 24))


def test_a_batch_has_the_same_group_of_every_slot():
    """Slot 0 has the samples 0, 2, ..., 10 of lengths 5, 9, 8, 7, 6, 11; slot 1 has lengths 1, 2, 3, 4, 0, 10."""
    stream = buckets(lanes=2)
    found = sorted([LENGTHS[n] for n in batch(stream, k)] for k in range(WINDOW))
    assert found == [[5, 6, 0, 1], [7, 8, 2, 3], [9, 11, 4, 10]]
    assert all(n % 2 == slot for slot in range(2) for n in stream.samples(1, slot))


def test_a_rank_reads_the_lengths_of_its_slots_only():
    read = []
    stream = LengthBuckets(lambda n: read.append(n) or n, BATCH, WINDOW, 0, lanes=2)
    stream.samples(0, 1)
    assert read == [1, 3, 5, 7, 9, 11]


def test_order_of_batches_is_shuffled_in_each_window():
    def order(seed):
        stream = buckets(seed)
        return [LENGTHS[batch(stream, k)[0] % 12] // 4 for k in range(30)]

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


def take(count, skip=0, **options):
    """Return the batches of a loader that resumes after ``skip`` batches of another one."""
    datasets = {"captions": Captions()}
    first = MultitaskLoader(datasets, DatasetSchedule(datasets), BATCH)
    for _ in range(skip):
        next(first)
    loader = MultitaskLoader(datasets, DatasetSchedule(datasets), BATCH, **options)
    loader.load_state_dict(first.state_dict())
    found = [next(loader)[1] for _ in range(count)]
    loader.close()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_batches_do_not_depend_on_workers_ranks_and_resumes(workers, ranks):
    expected = [batch(buckets(lanes=BATCH), k) for k in range(8)]
    by_rank = [take(8, num_workers=workers, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert [[n for batches in by_rank for n in batches[k]] for k in range(8)] == expected
    assert take(3, skip=5, num_workers=workers) == expected[5:]
