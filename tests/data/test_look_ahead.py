import pickle
from itertools import islice

import pytest

from mmf_flava.data.batch_sampler import StreamBatchSampler
from mmf_flava.data.look_ahead import BATCHES_AHEAD, Batch, LookAhead
from mmf_flava.data.sampling import build_batch_loader, build_evaluation_loader

BATCHES = [[10 * number, 10 * number + 1] for number in range(9)]


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 20])
def test_batches_are_the_same_and_each_sample_is_listed_once(workers):
    ahead = LookAhead(BATCHES, workers)
    batches = list(ahead)
    assert batches == BATCHES and len(ahead) == 9
    assert sorted(n for batch in batches for n in batch.later) == sorted(n for batch in BATCHES for n in batch)
    workers = max(workers, 1)
    for number, batch in enumerate(batches):
        for later in {n // 10 for n in batch.later}:
            assert number <= later <= number + BATCHES_AHEAD * workers and (later - number) % workers == 0


def test_the_first_batch_of_a_worker_lists_its_own_samples():
    first, second, third, *_ = LookAhead(BATCHES, 2)
    assert first.later == [0, 1, 20, 21, 40, 41] and second.later == [10, 11, 30, 31, 50, 51]
    assert third.later == [60, 61]


def test_an_endless_sampler_resumes_at_the_same_batch():
    def take(first, count):
        return list(islice(LookAhead(StreamBatchSampler(4, 0, 1, first), 2), count))

    assert take(8, 5) == take(0, 7)[2:]


def test_batches_can_be_pickled():
    batch = next(iter(LookAhead(BATCHES, 1)))
    copy = pickle.loads(pickle.dumps(batch))
    assert copy == batch and copy.later == batch.later and type(copy) is Batch


class Recorded:
    """A dataset that returns what is read ahead with each sample."""

    def __init__(self):
        self.ahead = ()

    def __len__(self):
        return 18

    def __getitem__(self, n):
        return n, tuple(self.ahead)

    def __getitems__(self, batch):
        self.ahead = batch.later
        return [self[n] for n in batch]

    def read_ahead(self, samples):
        self.ahead = samples

    def collate(self, samples):
        return samples


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_get_the_later_samples(workers):
    batches = list(build_batch_loader(Recorded(), BATCHES, workers))
    assert [[n for n, _ in batch] for batch in batches] == BATCHES
    assert [batch[0][1] for batch in batches] == [tuple(batch.later) for batch in LookAhead(BATCHES, workers)]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluations_read_ahead(workers):
    class Plain(Recorded):
        __getitems__ = None

    batches = list(build_evaluation_loader(Plain(), 2, workers))
    expected = LookAhead([[n, n + 1] for n in range(0, 18, 2)], workers)
    assert [batch[0][1] for batch in batches] == [tuple(batch.later) for batch in expected]
