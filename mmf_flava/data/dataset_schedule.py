"""Selection of a dataset for each training step with MMF's iteration strategies, reproducible from seed and step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.data.order import sample_generator
from mmf_flava.errors import UserError

_STREAM = crc32(b"sampling")
MMF_PACKAGES = ("mmf", "mmf_flava")
# strategies whose choice depends on the generator only, and those that repeat after one call per dataset
DRAWN = (
    "Ratios", "RatiosIterationStrategy", "ConstantIterationStrategy", "RandomIterationStrategy",
    "SizeProportionalIterationStrategy",
)  # fmt: skip
REPEATED = ("RoundRobin", "RoundRobinIterationStrategy")
MANY_CALLS = 10_000  # take a second


class DatasetSchedule:
    """Maps each training step to a dataset with an MMF iteration strategy.

    The result is the same on all ranks, without communication, and in resumed runs. A strategy may use numpy's global
    generator: during each call, the global generator is replaced by one that is seeded with the run's seed and the
    step, so no other thread may use the global generator at the same time. A registered strategy may also depend on the
    number of its calls: it is called once for every step up to the requested one. It is rebuilt if an earlier step is
    requested. MMF's own strategies skip the calls that do not matter.

    Args:
        datasets: name -> dataset to sample from; a strategy may use the lengths of the datasets.
        multitasking: the config's ``multitasking`` section; if disabled, every step uses the first dataset.
        seed: seed of the run, >= 0.
    """

    def __init__(self, datasets: Mapping[str, Any], multitasking: MultitaskingConfig | None = None, seed: int = 0):
        self.multitasking, self.seed = multitasking or MultitaskingConfig(), seed
        self.names = list(datasets) if self.multitasking.enabled else list(datasets)[:1]
        self.datasets = {name: datasets[name] for name in self.names}
        self._num_calls, self._choice = 0, -1
        self._strategy: Callable[[], int] | None = None

    def dataset_at(self, step: int) -> str:
        """Return the name of the dataset of ``step`` (>= 0). Calls with increasing steps are fastest.

        Raises:
            UserError: the strategy returned an invalid dataset index.
        """
        if self._strategy is None or step < self._num_calls - 1:
            self._strategy, self._num_calls = mmf_api.build_iteration_strategy(self.multitasking, self.datasets), 0
        if step >= self._num_calls:
            with _preserve_numpy_generator():
                for number in range(self._first_call(step), step + 1):
                    set_bit_generator(sample_generator(self.seed, number, _STREAM).bit_generator)
                    self._choice = int(self._strategy())
            self._num_calls = step + 1
        if not 0 <= self._choice < len(self.names):
            raise UserError(
                f"multitasking.type: the strategy {self.multitasking.type} returned dataset index "
                f"{self._choice}, expected 0 to {len(self.names) - 1} ({', '.join(self.names)}). Check "
                "multitasking.params."
            )
        return self.names[self._choice]

    def _first_call(self, step: int) -> int:
        """Return the number of the first call that the choice of ``step`` depends on."""
        kind = type(self._strategy)
        named = kind.__name__ if kind.__module__.partition(".")[0] in MMF_PACKAGES else None
        if named in DRAWN or len(self.names) == 1:
            return step
        if named in REPEATED:
            return step - (step - self._num_calls) % len(self.names)
        if (calls := step - self._num_calls) > MANY_CALLS:
            mmf_api.log(
                f"The strategy {self.multitasking.type} of multitasking.type is called {calls:,} times, because its "
                "choices may depend on the number of its calls."
            )
        return self._num_calls


@contextmanager
def _preserve_numpy_generator() -> Iterator[None]:
    """Restore numpy's global generator and its state on exit."""
    generator, state = get_bit_generator(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        set_bit_generator(generator)
        np.random.set_state(state)  # restores the cached Gaussian, which set_bit_generator clears
