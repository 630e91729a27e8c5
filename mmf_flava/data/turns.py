"""Which dataset gives which step: a strategy of MMF's, made a pure function of the seed and the step."""

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


class Turns:
    """Every rank gets the same answers without being told, and a resumed run those of one that never stopped.

    A strategy may draw from numpy's global generator: while it is asked, that is one of the seed and the step alone,
    and no other thread of this process may draw from it.
    And it may count its calls: it is called for every step before, and built anew to go back.

    Args:
        datasets: name -> dataset that takes turns; a strategy may ask for their lengths.
        multitasking: the recipe's section; not enabled, the first dataset has all turns.
        seed: of the run, >= 0.
    """

    def __init__(self, datasets: Mapping[str, Any], multitasking: MultitaskingConfig | None = None, seed: int = 0):
        self.multitasking, self.seed = multitasking or MultitaskingConfig(), seed
        self.names = list(datasets) if self.multitasking.enabled else list(datasets)[:1]
        self.datasets = {name: datasets[name] for name in self.names}
        self._asked, self._answer = 0, -1
        self._strategy: Callable[[], int] | None = None

    def dataset_at(self, step: int) -> str:
        """The name of the dataset of ``step``, >= 0; quickest for a step and its successor.

        Raises:
            UserError: the strategy's answer is not the number of a dataset.
        """
        if self._strategy is None or step < self._asked - 1:
            self._strategy, self._asked = mmf_api.iteration_strategy(self.multitasking, self.datasets), 0
        if step >= self._asked:
            with _numpy_state_kept():
                for number in range(self._asked, step + 1):
                    set_bit_generator(sample_generator(self.seed, number, _STREAM).bit_generator)
                    self._answer = int(self._strategy())
            self._asked = step + 1
        if not 0 <= self._answer < len(self.names):
            raise UserError(
                f"multitasking.type: {self.multitasking.type} chose dataset {self._answer} of {', '.join(self.names)}, "
                f"which are 0 to {len(self.names) - 1}; see multitasking.params."
            )
        return self.names[self._answer]


@contextmanager
def _numpy_state_kept() -> Iterator[None]:
    """Numpy's global generator may be exchanged within, and is itself again afterwards."""
    own, state = get_bit_generator(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        set_bit_generator(own)
        np.random.set_state(state)  # with the normal number that it may hold back, which the exchange loses
