"""The order of samples, and the randomness of each, as pure functions of (seed, n).

Nothing here keeps state that a checkpoint would have to carry: the n-th sample of the endless stream is the same for
any number of workers, after any number of restarts.
"""

from collections import OrderedDict

import numpy as np

# Philox has a 256-bit counter: words 2 and 3 name the sample and the purpose, words 0 and 1 count its random numbers.
_BLOCKS, _INSIDE = 0x0B10C5, 0x1451DE


def sample_generator(seed: int, n: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of sample n: crops, masks, captions, negatives.

    Args:
        seed: the run's seed, >= 0.
        n: number of the sample in the endless stream, >= 0.
        stream: separates purposes that share (seed, n), for example two datasets.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, n, stream]))


class Order:
    """Which record is the n-th sample of an endless stream over ``size`` records; every epoch is a permutation.

    Shuffling permutes blocks of ``block_size`` neighbouring records and the records inside each block, so that reads
    stay near-sequential in a shard while an index of 70 million records needs no 70-million permutation in memory.

    Args:
        size: number of records, >= 1.
        seed: the same seed gives the same order.
        shuffle: False gives file order in every epoch.
        block_size: records a block; at least ``size`` means one full permutation.
    """

    KEPT_BLOCKS = 8  # bounds the memory: a stream read in order touches one or two blocks at a time

    def __init__(self, size: int, seed: int = 0, shuffle: bool = True, block_size: int = 1024):
        if size < 1 or block_size < 1:
            raise ValueError(f"an order needs size >= 1 and block_size >= 1, not {size} and {block_size}")
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.block_size = min(block_size, size)
        self.blocks = -(-size // self.block_size)
        self._epoch = -1
        self._block_order = np.zeros(0, dtype=np.int64)
        self._short_rank = 0
        self._inside: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def index(self, n: int) -> int:
        """The record, in [0, size), of the n-th sample, n >= 0."""
        epoch, position = divmod(int(n), self.size)
        if not self.shuffle:
            return position
        self._load_epoch(epoch)
        rank, offset = self._locate(position)
        block = int(self._block_order[rank])
        return block * self.block_size + int(self._permutation(epoch, block)[offset])

    def _locate(self, position: int) -> tuple[int, int]:
        """(rank of the block in this epoch, offset inside it). Only the file's last block may be short."""
        before = self._short_rank * self.block_size
        short = self._length(self.blocks - 1)
        if position < before:
            return divmod(position, self.block_size)
        if position < before + short:
            return self._short_rank, position - before
        rank, offset = divmod(position - before - short, self.block_size)
        return self._short_rank + 1 + rank, offset

    def _length(self, block: int) -> int:
        return min(self.block_size, self.size - block * self.block_size)

    def _load_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._block_order = sample_generator(self.seed, epoch, _BLOCKS).permutation(self.blocks)
            self._short_rank = int(np.flatnonzero(self._block_order == self.blocks - 1)[0])
            self._epoch = epoch

    def _permutation(self, epoch: int, block: int) -> np.ndarray:
        key = (epoch, block)
        if key not in self._inside:
            if len(self._inside) >= self.KEPT_BLOCKS:
                self._inside.popitem(last=False)
            # Words 1 and 2 of the counter cannot collide with another epoch's: block < 2**64 has its own word.
            bits = np.random.Philox(key=self.seed, counter=[0, block, epoch, _INSIDE])
            self._inside[key] = np.random.Generator(bits).permutation(self._length(block))
        return self._inside[key]
