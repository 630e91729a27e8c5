"""Weighted mixtures of the paths of a dataset. The record of sample n depends only on the seed and n.

With ``splits: {train: {coco: 1, cc12m: 0.5, redcaps: 2}}``, one epoch contains every record of coco once, half of the
records of cc12m (all of them after two epochs), and every record of redcaps twice.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

import numpy as np

from mmf_flava.data.order import Order, sample_generator
from mmf_flava.errors import UserError

SLICE_SIZE = 4096  # maximum samples per slice; the proportions are exact in every slice
_STREAM = crc32(b"mixture")


class Component(NamedTuple):
    """A component of a mixture (one path): its number of records, and its number of records per shuffle block."""

    size: int
    block_size: int


class Mixture:
    """Mapping from sample indices of an endless stream to records; an epoch contains each component ``weight`` times.

    Each component is an endless stream with its own ``Order`` and starts its next epoch after all its records were
    used. An epoch of the mixture is divided into m slices of at most ``SLICE_SIZE`` samples. After j slices of the
    stream, a component has contributed j/m * weight * size samples, rounded; inside a slice the components are
    shuffled. Proportions and epochs are therefore exact to one sample per component at any position, reads stay
    near-sequential in each component, and memory does not grow with the data.

    Records are numbered consecutively across the components; ``size`` is the length of the first epoch.

    Args:
        components: size and block size of each component.
        weights: path -> weight above 0, in the order of ``components``.
        seed: seed of the run.

    Raises:
        UserError: a component has no records, or an epoch has no samples.
    """

    CACHED_SLICES = 8  # reading the stream in order uses one or two slices at a time

    def __init__(self, components: Sequence[Component], weights: Mapping[str, float], seed: int = 0):
        for path, component in zip(weights, components, strict=True):
            if not component.size:
                raise UserError(f"{path} has no records. Remove the path from the mixture.")
        self.seed = seed
        # Separate seeds: with the same seed, components of equal size would have the same permutations.
        self._orders = [
            Order(component.size, seed + (n << 64), True, component.block_size)
            for n, component in enumerate(components)
        ]
        self._first_records = [0, *accumulate(component.size for component in components)][:-1]
        # Fractions keep the proportions exact at any sample index; str converts the weight 0.1 to exactly one tenth.
        self._quotas = [
            Fraction(str(weight)) * component.size
            for weight, component in zip(weights.values(), components, strict=True)
        ]
        self.slices = math.ceil(sum(self._quotas) / SLICE_SIZE)
        self.size = sum(self._samples_before(self.slices))
        if not self.size:
            raise UserError(f"An epoch with the weights {dict(weights)} has no samples. Increase the weights.")
        self._cached: OrderedDict[int, tuple[int, np.ndarray, np.ndarray]] = OrderedDict()

    def index(self, n: int) -> int:
        """Return the index of the record that sample n (>= 0) is created from."""
        start, components, positions = self._load_slice(self._find_slice(int(n)))
        component, position = int(components[n - start]), int(positions[n - start])
        return self._first_records[component] + self._orders[component].index(position)

    def _samples_before(self, number: int) -> list[int]:
        """Return the number of samples of each component before slice ``number``, rounded half up."""
        return [math.floor(quota * number / self.slices + Fraction(1, 2)) for quota in self._quotas]

    def _find_slice(self, n: int) -> int:
        """Return the number of the slice that contains sample n."""
        for number, (start, components, _) in self._cached.items():
            if start <= n < start + len(components):
                return number
        # Rounding shifts a slice's start by at most half a sample per component, so the estimate is off by few slices.
        number = int(n * self.slices / sum(self._quotas))
        while sum(self._samples_before(number)) > n:
            number -= 1
        while sum(self._samples_before(number + 1)) <= n:
            number += 1
        return number

    def _load_slice(self, number: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Return a slice: first sample, component of each sample, and position of each in its component's stream."""
        if number not in self._cached:
            if len(self._cached) >= self.CACHED_SLICES:
                self._cached.popitem(last=False)
            before, after = self._samples_before(number), self._samples_before(number + 1)
            counts = [end - begin for begin, end in zip(before, after, strict=True)]
            components = np.repeat(np.arange(len(counts)), counts)
            components = sample_generator(self.seed, number, _STREAM).permutation(components)
            positions = np.empty(len(components), dtype=np.int64)
            for component, (begin, end) in enumerate(zip(before, after, strict=True)):
                positions[components == component] = np.arange(begin, end)
            self._cached[number] = sum(before), components, positions
        return self._cached[number]
