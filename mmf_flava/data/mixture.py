"""Weighted mixtures of the paths of a dataset. The record of sample n depends only on the seed and n.

With ``splits: {train: {coco: 1, cc12m: 0.5, redcaps: 2}}``, one epoch contains every record of coco once, half of the
records of cc12m (all of them after two epochs), and every record of redcaps twice.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from zlib import crc32

import numpy as np

from mmf_flava.data.order import LANES, Order, Unit, largest_divisor, sample_generator
from mmf_flava.errors import UserError

SLICE_SIZE = 4096  # maximum samples per slice, but at least SLICE_ROUNDS samples per lane
SLICE_ROUNDS = 16
_STREAM = crc32(b"mixture")


class Mixture:
    """Mapping from sample indices of an endless stream to records; an epoch contains each component ``weight`` times.

    Each component is an endless stream with its own ``Order`` and starts its next epoch after all its records were
    used. An epoch of the mixture is divided into m slices. After j slices of the stream, a component has contributed
    j/m * weight * size samples, rounded; inside a slice the components are shuffled. Proportions and epochs are
    therefore exact to one sample per component at any position, and memory does not grow with the data.

    With C lanes, a component of share s of the samples has as many lanes as the largest divisor of C that is at most
    s * C. In every slice, the samples in the order of their lanes (as a fraction of the component's lanes) are assigned
    to the positions in the order of n mod C, so that a process that reads a part of these positions reads about the
    same part of the lanes of every component.

    Records are numbered consecutively across the components; ``size`` is the length of the first epoch.

    Args:
        components: the units of each component.
        weights: path -> weight above 0, in the order of ``components``.
        seed: seed of the run.
        lanes: number of lanes C, >= 1.

    Raises:
        UserError: a component has no records, or an epoch has no samples.
    """

    CACHED_SLICES = 8  # reading the stream in order uses few slices at a time

    def __init__(
        self,
        components: Sequence[Sequence[Unit]],
        weights: Mapping[str, float],
        seed: int = 0,
        lanes: int = LANES,
    ):
        sizes = [sum(unit.size for unit in units) for units in components]
        for path, size in zip(weights, sizes, strict=True):
            if not size:
                raise UserError(f"{path} has no records. Remove the path from the mixture.")
        self.seed = seed
        self._first_records = [0, *accumulate(sizes)][:-1]
        # Separate seeds: with the same seed, components of equal size would have the same permutations.
        self._orders = [
            Order(size, seed + (n << 64), True, units)
            for n, (size, units) in enumerate(zip(sizes, components, strict=True))
        ]
        # Fractions keep the proportions exact at any sample index; str converts the weight 0.1 to exactly one tenth.
        self._quotas = [Fraction(str(weight)) * size for weight, size in zip(weights.values(), sizes, strict=True)]
        self.lanes = lanes
        self.size = sum(self._samples_before(self.slices))
        if not self.size:
            raise UserError(f"An epoch with the weights {dict(weights)} has no samples. Increase the weights.")

    @property
    def lanes(self) -> int:
        """Number of lanes C. Setting it changes the order."""
        return self._lanes

    @lanes.setter
    def lanes(self, lanes: int) -> None:
        self._lanes, total = lanes, sum(self._quotas)
        for order, quota in zip(self._orders, self._quotas, strict=True):
            order.lanes = largest_divisor(lanes, math.floor(lanes * quota / total))
        self.slices = math.ceil(total / max(SLICE_SIZE, SLICE_ROUNDS * lanes))
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
            positions = np.concatenate([np.arange(*span) for span in zip(before, after, strict=True)])
            lanes = np.concatenate(
                [
                    order.lane(np.arange(*span)) * (self._lanes // order.lanes)
                    for order, span in zip(self._orders, zip(before, after, strict=True), strict=True)
                ]
            )
            slots = (sum(before) + np.arange(len(lanes))) % self._lanes
            generator = sample_generator(self.seed, number, _STREAM)
            by_lane, by_slot = (_sort_shuffled(keys, generator) for keys in (lanes, slots))
            assigned = np.empty_like(by_lane)
            assigned[by_slot] = by_lane
            # the samples of each lane of a component stay in order, so that shards are read one after the other
            lanes += components * self._lanes
            by_lane, by_slot = (np.argsort(keys, kind="stable") for keys in (lanes, lanes[assigned]))
            components = components[assigned]
            positions[by_slot] = positions[by_lane]
            self._cached[number] = sum(before), components, positions
        return self._cached[number]


def _sort_shuffled(keys: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the indices that sort ``keys``; equal keys are in random order."""
    shuffled = generator.permutation(len(keys))
    return shuffled[np.argsort(keys[shuffled], kind="stable")]
