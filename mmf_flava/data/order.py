"""Sample order and random generators as pure functions of the seed and the index n of a sample in the endless stream.

Therefore, checkpoints store no generator state, and a sample does not depend on the number of workers or on restarts.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np

# Philox has a counter of four 64-bit words: words 2 and 3 are n and the stream, words 0 and 1 count random numbers.
_UNIT_ORDER_STREAM, _RECORD_ORDER_STREAM = 0x0B10C5, 0x1451DE
LANES = 256  # default number of lanes
MAX_SPREAD = 1 << 16  # records of a unit of a source without shards, which limits the memory of its permutation

Index = TypeVar("Index", int, np.ndarray)


def sample_generator(seed: int, n: int, stream: int = 0) -> np.random.Generator:
    """Return the random generator of sample n, which determines its crops, masks and captions.

    Args:
        seed: the run's seed, >= 0.
        n: index of the sample in the endless stream, >= 0.
        stream: distinguishes independent uses of the same (seed, n), for example two datasets.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, n, stream]))


class Unit(NamedTuple):
    """Records that are shuffled together: ``first``, ``first + step``, ..., ``size`` records in all."""

    first: int
    step: int
    size: int


def spread_units(size: int, first: int = 0) -> list[Unit]:
    """Return the units of ``size`` records that can be read in any order: one or several that span all records."""
    step = -(-size // MAX_SPREAD)
    return [Unit(first + offset, step, len(range(offset, size, step))) for offset in range(step)]


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of ``number`` that is at most ``limit``, and at least 1."""
    return next((divisor for divisor in range(min(limit, number), 1, -1) if number % divisor == 0), 1)


class Order:
    """Mapping from the sample indices of an endless stream to records; every epoch is a permutation of the records.

    Epoch e is a sequence of all N records: the units are shuffled, and so are the records inside each unit. Units are
    tar shards, or the entire source if it has no shards. The sequence is divided into C lanes of N/C consecutive
    records, and the samples of the epoch come from the lanes in turn: sample t of the epoch is the next record of lane
    t mod C. Samples that are neighbours in the stream are therefore far apart in the source, and a process that reads
    only some of the lanes reads only some of the shards, each from beginning to end.

    Args:
        size: number of records, >= 1.
        seed: seed of the run.
        shuffle: if False, every epoch has the order of the files.
        units: the units in the order of the records; none: the source has no shards.
        lanes: number of lanes C, >= 1.
    """

    def __init__(self, size: int, seed: int = 0, shuffle: bool = True, units: Sequence[Unit] = (), lanes: int = LANES):
        if size < 1 or lanes < 1:
            raise ValueError(f"size and lanes must be at least 1, got {size} and {lanes}")
        self.size, self.seed, self.shuffle, self.lanes = size, seed, shuffle, lanes
        self.units = [unit for unit in units or spread_units(size) if unit.size]
        if sum(unit.size for unit in self.units) != size:
            raise ValueError(f"the units have {sum(unit.size for unit in self.units)} records, expected {size}")
        self._epochs: OrderedDict[int, tuple[list[int], list[int]]] = OrderedDict()
        self._permutations: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def index(self, n: int) -> int:
        """Return the index of the record that sample n (>= 0) is created from."""
        epoch, position = divmod(int(n), self.size)
        if not self.shuffle:
            return position
        length, longer = divmod(self.size, self.lanes)  # the first lanes are longer by one record
        number, lane = divmod(position, self.lanes)
        return self._record(epoch, lane * length + min(lane, longer) + number)

    def lane(self, n: Index) -> Index:
        """Return the lane of sample n, or of each sample of an array."""
        return n % self.size % self.lanes  # type: ignore[return-value]

    def _record(self, epoch: int, position: int) -> int:
        """Return the record at a position of the sequence of an epoch."""
        if epoch not in self._epochs:
            order = sample_generator(self.seed, epoch, _UNIT_ORDER_STREAM).permutation(len(self.units)).tolist()
            _make_room(self._epochs, 2)  # a batch may contain the end of an epoch and the start of the next one
            self._epochs[epoch] = order, [0, *accumulate(self.units[number].size for number in order)]
        order, starts = self._epochs[epoch]
        place = bisect_right(starts, position) - 1
        unit = self.units[order[place]]
        return unit.first + unit.step * int(self._permutation(epoch, order[place])[position - starts[place]])

    def _permutation(self, epoch: int, number: int) -> np.ndarray:
        key, size = (epoch, number), self.units[number].size
        if key in self._permutations:
            self._permutations.move_to_end(key)
        else:
            _make_room(self._permutations, self.lanes + 8)  # a unit per lane is read at a time
            # Unit and epoch have separate counter words, so that no two permutations share random numbers.
            bits = np.random.Philox(key=self.seed, counter=[0, number, epoch, _RECORD_ORDER_STREAM])
            dtype = np.min_scalar_type(size - 1)  # a process holds a permutation per lane
            self._permutations[key] = np.random.Generator(bits).permutation(size).astype(dtype)
        return self._permutations[key]


def _make_room(cache: OrderedDict, limit: int) -> None:
    while len(cache) >= limit:
        cache.popitem(last=False)
