"""Parts of a dataset mixed by weight: the order of the n-th sample over several parts, a pure function of (seed, n).

``splits: {train: {coco: 1, cc12m: 0.5, redcaps: 2}}`` shows in one epoch every record of coco once, half of cc12m's
(after two epochs each of them once), and every record of redcaps twice.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from mmf_flava.config.schema import plain
from mmf_flava.data.order import Order, sample_generator
from mmf_flava.errors import UserError

SLICE = 4096  # samples, about, in which the parts' shares are exact
_STREAM = crc32(b"mixture")


class Part(NamedTuple):
    """A part's number of records, and how many of them a block of its shuffle has."""

    size: int
    block_size: int


class Mixture:
    """Which record is the n-th sample of an endless stream in which each part appears ``weight`` times an epoch.

    A part is an endless stream of its own, an ``Order``: it begins its next pass when all of its records were shown.
    An epoch is cut into slices of at most ``SLICE`` samples. At the end of slice j, counted from the beginning of the
    stream, a part of an epoch of m slices has given j/m * weight * size samples, rounded; inside a slice the parts are
    shuffled. So shares and epochs are exact to one sample a part, at any distance from the beginning, reads stay
    near-sequential in each part, and nothing of the size of the data is kept.

    Records are numbered through the parts in their order; ``size`` is the length of the first epoch.

    Args:
        parts: of each part its size and block size.
        weights: path -> weight above 0, in the order of ``parts``.
        seed: the same seed gives the same order.

    Raises:
        UserError: a part has no records, or an epoch no samples.
    """

    KEPT_SLICES = 8  # as many as blocks of an Order: a stream read in order touches one or two at a time

    def __init__(self, parts: Sequence[Part], weights: Mapping[str, float], seed: int = 0):
        for path, part in zip(weights, parts, strict=True):
            if not part.size:
                raise UserError(f"{path} has no records to mix: take it out.")
        self.seed = seed
        # Each part draws its own permutations: parts of one size would otherwise be read in step.
        self._orders = [Order(part.size, seed + (n << 64), True, part.block_size) for n, part in enumerate(parts)]
        self._first_records = [0, *accumulate(part.size for part in parts)][:-1]
        # Fractions, so that shares are exact at sample 10**12 too; str, so that 0.1 is a tenth.
        self._quotas = [Fraction(str(weight)) * part.size for weight, part in zip(weights.values(), parts, strict=True)]
        self.slices = math.ceil(sum(self._quotas) / SLICE)
        self.size = sum(self._given(self.slices))
        if not self.size:
            raise UserError(f"An epoch with the weights {dict(weights)} has no samples: make them larger.")
        self._kept: OrderedDict[int, tuple[int, np.ndarray, np.ndarray]] = OrderedDict()

    def index(self, n: int) -> int:
        """The record of the n-th sample, n >= 0."""
        number = self._slice_of(int(n))
        start, parts, ranks = self._load_slice(number)
        part, rank = int(parts[n - start]), int(ranks[n - start])
        return self._first_records[part] + self._orders[part].index(rank)

    def _given(self, number: int) -> list[int]:
        """How many samples each part has given before slice ``number``: its share, half rounded up."""
        return [math.floor(quota * number / self.slices + Fraction(1, 2)) for quota in self._quotas]

    def _slice_of(self, n: int) -> int:
        for number, (start, parts, _) in self._kept.items():
            if start <= n < start + len(parts):
                return number
        # Rounding moves a slice's start by less than half a sample a part, so the guess is a step or two off at most.
        number = int(n * self.slices / sum(self._quotas))
        while sum(self._given(number)) > n:
            number -= 1
        while sum(self._given(number + 1)) <= n:
            number += 1
        return number

    def _load_slice(self, number: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(number of its first sample, the part of each sample, the number of each sample in its part's stream)."""
        if number not in self._kept:
            if len(self._kept) >= self.KEPT_SLICES:
                self._kept.popitem(last=False)
            before, after = self._given(number), self._given(number + 1)
            counts = [end - begin for begin, end in zip(before, after, strict=True)]
            parts = np.repeat(np.arange(len(counts)), counts)
            parts = sample_generator(self.seed, number, _STREAM).permutation(parts)
            ranks = np.empty(len(parts), dtype=np.int64)
            for part, (begin, end) in enumerate(zip(before, after, strict=True)):
                ranks[parts == part] = np.arange(begin, end)
            self._kept[number] = sum(before), parts, ranks
        return self._kept[number]


def path_weights(config: Mapping[str, Any], name: str, dataset_type: str) -> dict[str, float] | None:
    """The weights of the paths of a split in the YAML, or None where it is a list.

    Raises:
        UserError: a weight that is no number above 0, or weights outside training.
    """
    where = f"dataset_config.{name}.splits.{dataset_type}"
    listed = (config.get("splits") or {}).get(dataset_type)
    if not isinstance(listed, Mapping):
        return None
    if dataset_type != "train":
        raise UserError(f"{where} has weights, but only training is weighted: list its paths.")
    weights = plain(listed)
    for path, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight > 0):
            raise UserError(f"{where}.{path} is {weight!r}; a weight is a number above 0 (to leave a path out, do so).")
    return weights
