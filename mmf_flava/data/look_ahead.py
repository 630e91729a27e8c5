"""Batches that also say which samples are read later, so that their records can be downloaded in the background."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

# While a worker loads a batch, the records of its next two batches are downloaded: one of them may be late without a
# wait. What is in the cache but not yet read is thus at most two batches per worker, for example 2 x 4 x 512 records of
# 50 kB, 200 MB, per process with four workers.
BATCHES_AHEAD = 2


class Batch(list[int]):
    """The sample indices of a batch.

    Attributes:
        later: samples that the same worker reads in this batch or later and that no earlier batch listed.
    """

    later: Sequence[int] = ()


class LookAhead:
    """The batches of a batch sampler, as ``Batch``. The batches and their order do not change.

    Args:
        batches: batch sampler whose iterators do not depend on what is read from them and when.
        workers: number of data loader workers, which load the batches in turn; 0 for the main process.
    """

    def __init__(self, batches: Iterable[Sequence[int]], workers: int) -> None:
        self.batches, self.workers = batches, max(workers, 1)

    def __len__(self) -> int:
        assert isinstance(self.batches, Sized)
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Call the method of the batch sampler, for MMF's trainers."""
        self.batches.set_epoch(epoch)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[Batch] = deque()
        distance = BATCHES_AHEAD * self.workers
        for number, indices in enumerate(self.batches):
            batch = Batch(indices)
            waiting.append(batch)
            # the first batch of each worker also lists its own samples and those of the batches until ``distance``
            carrier = waiting[number % self.workers] if number < distance else waiting[0]
            carrier.later = [*carrier.later, *batch]
            if len(waiting) > distance:
                yield waiting.popleft()
        yield from waiting


def later_samples(batch: Any) -> Sequence[int]:
    """Return the samples that are read later than a batch, as far as it says so."""
    return getattr(batch, "later", ())
