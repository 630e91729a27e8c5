"""Sample order and random generators as pure functions of the seed and the index n of a sample in the endless stream.

Therefore, checkpoints store no generator state, and a sample does not depend on the number of workers or on restarts.
"""

from collections import OrderedDict

import numpy as np

# Philox has a counter of four 64-bit words: words 2 and 3 are n and the stream, words 0 and 1 count random numbers.
_BLOCK_ORDER_STREAM, _RECORD_ORDER_STREAM = 0x0B10C5, 0x1451DE


def sample_generator(seed: int, n: int, stream: int = 0) -> np.random.Generator:
    """Return the random generator of sample n, which determines its crops, masks and captions.

    Args:
        seed: the run's seed, >= 0.
        n: index of the sample in the endless stream, >= 0.
        stream: distinguishes independent uses of the same (seed, n), for example two datasets.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, n, stream]))


class Order:
    """Mapping from the sample indices of an endless stream to records; every epoch is a permutation of the records.

    Shuffling permutes the blocks of ``block_size`` consecutive records and the records inside each block. Reads stay
    near-sequential in a shard, and 70 million records need no permutation of 70 million entries in memory.

    Args:
        size: number of records, >= 1.
        seed: seed of the run.
        shuffle: if False, every epoch has the order of the files.
        block_size: records per block; if it is at least ``size``, all records are permuted together.
    """

    CACHED_BLOCKS = 8  # reading the stream in order uses one or two blocks at a time

    def __init__(self, size: int, seed: int = 0, shuffle: bool = True, block_size: int = 1024):
        if size < 1 or block_size < 1:
            raise ValueError(f"size and block_size must be at least 1, got {size} and {block_size}")
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.block_size = min(block_size, size)
        self.blocks = -(-size // self.block_size)
        self._epoch = -1
        self._block_order = np.zeros(0, dtype=np.int64)
        self._short_slot = 0
        self._record_orders: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def index(self, n: int) -> int:
        """Return the index of the record that sample n (>= 0) is created from."""
        epoch, position = divmod(int(n), self.size)
        if not self.shuffle:
            return position
        self._load_epoch(epoch)
        slot, offset = self._locate(position)
        block = int(self._block_order[slot])
        return block * self.block_size + int(self._permutation(epoch, block)[offset])

    def _locate(self, position: int) -> tuple[int, int]:
        """Return the slot of a sample's block in the epoch's block order, and the offset of the sample in the block.

        Only the block with the last records may have fewer than ``block_size`` records.
        """
        before = self._short_slot * self.block_size
        short = self._length(self.blocks - 1)
        if position < before:
            return divmod(position, self.block_size)
        if position < before + short:
            return self._short_slot, position - before
        slot, offset = divmod(position - before - short, self.block_size)
        return self._short_slot + 1 + slot, offset

    def _length(self, block: int) -> int:
        return min(self.block_size, self.size - block * self.block_size)

    def _load_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._block_order = sample_generator(self.seed, epoch, _BLOCK_ORDER_STREAM).permutation(self.blocks)
            self._short_slot = int(np.flatnonzero(self._block_order == self.blocks - 1)[0])
            self._epoch = epoch

    def _permutation(self, epoch: int, block: int) -> np.ndarray:
        key = (epoch, block)
        if key not in self._record_orders:
            if len(self._record_orders) >= self.CACHED_BLOCKS:
                self._record_orders.popitem(last=False)
            # Block and epoch have separate counter words, so that no two permutations share random numbers.
            bits = np.random.Philox(key=self.seed, counter=[0, block, epoch, _RECORD_ORDER_STREAM])
            self._record_orders[key] = np.random.Generator(bits).permutation(self._length(block))
        return self._record_orders[key]
