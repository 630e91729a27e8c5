"""Patches of fairseq 0.12.2 for current versions of Python and torch."""

import dataclasses
import functools
import sys
from typing import Any

from mmf_flava.compat.patch import patch


@patch(
    "fairseq",
    when="before",
    what="fairseq's dataclasses are hashable",
    why="dataclasses rejects unhashable defaults, and fairseq's configs have other configs as defaults",
    since="Python 3.11",
    until="fairseq uses field(default_factory=...)",
    needed=lambda _: sys.version_info >= (3, 11) and not hasattr(dataclasses.dataclass, "fairseq_is_hashable"),
)
def hashable_dataclasses(_: None) -> None:
    real = dataclasses.dataclass

    @functools.wraps(real)
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(cls: type) -> type:
            # dataclasses accepts a class with an explicit __hash__; this one hashes by identity
            if cls.__module__.partition(".")[0] == "fairseq" and "__hash__" not in vars(cls):
                cls.__hash__ = object.__hash__  # type: ignore[assignment, method-assign]
            return real(cls, **options)

        return decorate if cls is None else decorate(cls)

    vars(dataclass)["fairseq_is_hashable"] = True
    # fairseq's modules import dataclasses.dataclass, possibly long after this patch is applied
    vars(dataclasses)["dataclass"] = dataclass


@patch(
    "fairseq.distributed.utils",
    what="torch.load accepts fairseq's _TensorPlaceholder",
    why="broadcast_object unpickles this class; weights_only rejects it on one rank, and the other ranks hang",
    since="torch 2.6",
    until="fairseq declares its safe globals",
    needed=lambda module: hasattr(module, "_TensorPlaceholder"),
)
def safe_placeholder(module: Any) -> None:
    import torch

    torch.serialization.add_safe_globals([module._TensorPlaceholder])
