"""Batches of captions of similar length, so that little is padded; which, is a pure function of the seed."""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np

from mmf_flava.data.order import sample_generator

_STREAM = crc32(b"buckets")


class LengthBuckets:
    """The k-th global batch of a stream whose samples are sorted by length within windows of some batches.

    A window's batches come in an order that is drawn anew for each. A window that straddles the end of an epoch mixes
    the last samples of one with the first of the next; each sample of the stream comes once all the same.

    Args:
        length: of the n-th sample of the stream; any unit.
        batch_size: samples a global batch.
        window: global batches that are sorted together.
        seed: of the run.
    """

    def __init__(self, length: Callable[[int], int], batch_size: int, window: int, seed: int):
        self.length, self.batch_size, self.window, self.seed = length, batch_size, window, seed
        self._number = -1
        self._batches: np.ndarray = np.zeros((0, 0), dtype=np.int64)

    def __getitem__(self, k: int) -> Sequence[int]:
        number, inside = divmod(k, self.window)
        if number != self._number:
            size = self.window * self.batch_size
            positions = np.arange(number * size, (number + 1) * size)
            lengths = np.array([self.length(n) for n in positions.tolist()])
            batches = positions[np.argsort(lengths, kind="stable")].reshape(self.window, self.batch_size)
            self._batches = sample_generator(self.seed, number, _STREAM).permutation(batches)
            self._number = number
        return self._batches[inside].tolist()
