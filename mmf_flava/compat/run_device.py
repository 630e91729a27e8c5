"""The device of a run: CUDA is used if it is available and ``training.device`` is not ``cpu``."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from mmf_flava.compat.patch import overlay


def current_config() -> Any:
    """Return the configuration that MMF has registered; None outside a run, and if MMF is not imported."""
    module = sys.modules.get("mmf.common.registry")
    return None if module is None else module.registry.get("config", default=None, no_warning=True)


def uses_cuda(config: Any = None) -> bool:
    """Return whether CUDA is available and ``training.device`` is not ``cpu``.

    Args:
        config: the configuration of a run; None: the configuration that MMF has registered, if any.
    """
    import torch

    if not torch.cuda.is_available():
        return False
    config = current_config() if config is None else config
    training = (config or {}).get("training") or {}
    return str(training.get("device")) != "cpu"


@contextlib.contextmanager
def hide_cuda(*modules: Any) -> Iterator[None]:
    """Context manager: ``torch.cuda.is_available()`` returns False in the code of ``modules``."""
    real = [module.torch for module in modules]
    for module, torch in zip(modules, real, strict=True):
        module.torch = overlay(torch, cuda=overlay(torch.cuda, is_available=lambda: False))
    try:
        yield
    finally:
        for module, torch in zip(modules, real, strict=True):
            module.torch = torch
