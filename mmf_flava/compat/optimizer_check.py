"""Validation of ``optimizer`` and of params against the arguments of a class. Imports torch, but not MMF."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mmf_flava.config.optimization import check_arguments


def torch_optimizers() -> Iterator[str]:
    """Yield the names of torch's optimizers."""
    for name, value in vars(torch.optim).items():
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer:
            yield name


def check_optimizer(section: Mapping[str, Any], registered: Mapping[str, Any]) -> None:
    """Check ``optimizer.params`` against the arguments of the class of ``optimizer.type``, whose name must be known.

    Args:
        registered: MMF's registered optimizers; torch's optimizer of the same name is used first, as MMF does.
    """
    name = section.get("type")
    optimizer = getattr(torch.optim, name, None) or registered.get(name) if name else None
    if optimizer is not None:
        check_class(optimizer, section.get("params") or {}, "optimizer.params")


def check_class(cls: Any, params: Mapping[str, Any], where: str) -> None:
    """Check params against the arguments of an optimizer or scheduler class, except the first argument.

    If the class has ``**kwargs``, all names are accepted.
    """
    arguments = list(inspect.signature(cls).parameters.values())[1:]
    if any(argument.kind == argument.VAR_KEYWORD for argument in arguments):
        return
    named = [argument for argument in arguments if argument.kind != argument.VAR_POSITIONAL]
    missing = inspect.Parameter.empty
    check_arguments(params, {a.name: ... if a.default is missing else a.default for a in named}, where)
