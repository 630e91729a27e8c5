"""The samples of each training batch of one process."""

from collections.abc import Iterator, Sequence
from itertools import count

from mmf_flava.data.buckets import LengthBuckets


class StreamBatchSampler:
    """An endless batch sampler of one dataset, partitioned across ranks.

    The next global batch of B samples consists of the next B samples of the dataset's stream or, if ``buckets`` is
    given, of the next batch of the buckets. With C lanes, its samples are sorted by slot (n mod C) and divided into
    equal parts, one for each rank. Consecutive ranks, for example those of a node, have neighbouring slots, and a slot
    is read by the same rank in all batches.

    Args:
        batch_size: global batch size B, a multiple of ``lanes`` and of ``world_size``.
        first_sample: number of samples of earlier batches, a multiple of ``lanes``.
        lanes: number of lanes C.
    """

    def __init__(
        self,
        batch_size: int,
        rank: int,
        world_size: int,
        first_sample: int = 0,
        lanes: int = 1,
        buckets: LengthBuckets | None = None,
    ):
        self.batch_size, self.first_sample, self.lanes, self.buckets = batch_size, first_sample, lanes, buckets
        size, per_slot = batch_size // world_size, batch_size // lanes
        first, end = rank * size, (rank + 1) * size
        # slot -> part of the slot's samples that belongs to this rank; neighbouring ranks may share a slot
        self._parts = {
            slot: slice(max(first - slot * per_slot, 0), min(end - slot * per_slot, per_slot))
            for slot in range(first // per_slot, -(-end // per_slot))
        }

    def __iter__(self) -> Iterator[list[int]]:
        for start in count(self.first_sample, self.batch_size):
            yield [n for slot, part in self._parts.items() for n in self._samples(start, slot)[part]]

    def _samples(self, start: int, slot: int) -> Sequence[int]:
        """Return the samples of a slot in the global batch that starts at sample ``start`` of the stream."""
        if self.buckets is not None:
            return self.buckets.samples(start // self.batch_size, slot)
        return range(start + slot, start + self.batch_size, self.lanes)
