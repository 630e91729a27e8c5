"""Length bucketing: batches of samples with captions of similar length, to reduce padding."""

from collections.abc import Callable
from zlib import crc32

import numpy as np

from mmf_flava.data.order import sample_generator

_STREAM = crc32(b"buckets")


class LengthBuckets:
    """The samples of the global batches, grouped by length in windows of several batches.

    With C lanes and B samples per batch, a window of W batches has W * B / C samples of each slot (n mod C). They are
    sorted by length and divided into W groups, and a batch consists of the same group of every slot. The batches of the
    window are shuffled. A process needs only the lengths of its own slots. The result depends on the seed only. A
    window may span two epochs; each sample of the stream still appears exactly once.

    Args:
        length: function that returns the length of sample n of the stream, in any unit.
        batch_size: samples per global batch, a multiple of ``lanes``.
        window: global batches per window.
        seed: seed of the run.
        lanes: number of lanes C.
    """

    def __init__(self, length: Callable[[int], int], batch_size: int, window: int, seed: int, lanes: int = 1):
        self.length, self.batch_size, self.window, self.seed, self.lanes = length, batch_size, window, seed, lanes
        self._window_number = -1
        self._batch_order: np.ndarray = np.zeros(0, dtype=np.int64)
        self._groups: dict[int, np.ndarray] = {}

    def samples(self, batch: int, slot: int) -> list[int]:
        """Return the B / C samples of global batch number ``batch`` whose index is ``slot`` modulo C."""
        number, offset = divmod(batch, self.window)
        if number != self._window_number:
            self._window_number, self._groups = number, {}
            self._batch_order = sample_generator(self.seed, number, _STREAM).permutation(self.window)
        if slot not in self._groups:
            size = self.window * self.batch_size
            positions = np.arange(number * size + slot, (number + 1) * size, self.lanes)
            lengths = np.array([self.length(n) for n in positions.tolist()])
            self._groups[slot] = positions[np.argsort(lengths, kind="stable")].reshape(self.window, -1)
        return self._groups[slot][self._batch_order[offset]].tolist()
