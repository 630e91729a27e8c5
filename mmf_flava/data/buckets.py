"""Length bucketing: batches of samples with captions of similar length, to reduce padding."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np

from mmf_flava.data.order import sample_generator

_STREAM = crc32(b"buckets")


class LengthBuckets:
    """Sequence of global batches: ``buckets[k]`` is the list of indices of the samples in batch k.

    The samples of each window of several batches are sorted by length and divided into batches; then the batches of
    the window are shuffled. The result depends on the seed only. A window may span two epochs; each sample of the
    stream still appears exactly once.

    Args:
        length: function that returns the length of sample n of the stream, in any unit.
        batch_size: samples per global batch.
        window: global batches per window.
        seed: seed of the run.
    """

    def __init__(self, length: Callable[[int], int], batch_size: int, window: int, seed: int):
        self.length, self.batch_size, self.window, self.seed = length, batch_size, window, seed
        self._window_number = -1
        self._batches: np.ndarray = np.zeros((0, 0), dtype=np.int64)

    def __getitem__(self, k: int) -> Sequence[int]:
        number, offset = divmod(k, self.window)
        if number != self._window_number:
            size = self.window * self.batch_size
            positions = np.arange(number * size, (number + 1) * size)
            lengths = np.array([self.length(n) for n in positions.tolist()])
            batches = positions[np.argsort(lengths, kind="stable")].reshape(self.window, self.batch_size)
            self._batches = sample_generator(self.seed, number, _STREAM).permutation(batches)
            self._window_number = number
        return self._batches[offset].tolist()
