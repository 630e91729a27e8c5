"""The global random generators of Python, numpy and torch, which MMF's and users' datasets draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mmf_flava.data.order import sample_generator


@contextmanager
def seeded_generators(seed: int, n: int, stream: int = 0) -> Iterator[None]:
    """Seed the global generators from (seed, n, stream) for the time of the context, and restore their states on exit.

    Only torch's generator of the CPU is seeded. Datasets do not use those of GPUs, which a model may use.

    Args:
        seed: the run's seed, >= 0.
        n: index of the sample in the endless stream, >= 0.
        stream: distinguishes independent uses of the same (seed, n), for example two datasets.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()
    words = sample_generator(seed, n, stream).integers(2**32, size=6, dtype=np.uint32)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:4])
    torch.default_generator.manual_seed(int(words[4:].view(np.uint64)[0]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)
