"""fairseq 0.12.2 on today's Python and torch."""

from __future__ import annotations

import dataclasses
import functools
import sys
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure


@cure(
    "fairseq",
    when="before",
    what="fairseq's dataclasses are hashable",
    why="dataclasses refuses every default that is not hashable, and fairseq's configs are each other's defaults",
    since="Python 3.11",
    until="fairseq writes field(default_factory=...)",
    needed=lambda _: sys.version_info >= (3, 11) and not hasattr(dataclasses.dataclass, "fairseq_is_hashable"),
)
def hashable_dataclasses(_: None) -> None:
    real = dataclasses.dataclass

    @functools.wraps(real)
    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(cls: type) -> type:
            # a __hash__ of its own is what dataclasses looks for; identity is right for configs that change
            if cls.__module__.partition(".")[0] == "fairseq" and "__hash__" not in vars(cls):
                cls.__hash__ = object.__hash__  # type: ignore[assignment, method-assign]
            return real(cls, **options)

        return decorate if cls is None else decorate(cls)

    vars(dataclass)["fairseq_is_hashable"] = True
    # fairseq's modules take the name from here when they are imported, which may be much later
    vars(dataclasses)["dataclass"] = dataclass


@cure(
    "fairseq.distributed.utils",
    when="after",
    what="fairseq's _TensorPlaceholder may be loaded by torch.load",
    why="broadcast_object loads what it has itself sent; weights_only refuses the class on one rank, the others hang",
    since="torch 2.6",
    until="fairseq declares its safe globals",
    needed=lambda module: hasattr(module, "_TensorPlaceholder"),
)
def safe_placeholder(module: ModuleType) -> None:
    import torch

    torch.serialization.add_safe_globals([module._TensorPlaceholder])
