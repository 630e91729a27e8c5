"""Pickles that create a folder when the standard unpickler loads them, and pickles that take exponential time."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Canary:
    """An object that creates the folder ``path`` when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def doubled(kind: Callable[[list[Any]], Any], levels: int = 60) -> Any:
    """Return nested containers of two equal parts each, with 2 to the power of ``levels`` parts in total."""
    value = kind([])
    for _ in range(levels):
        value = kind([value, value])
    return value


def nested_key(levels: int = 60) -> bytes:
    """Return the pickle of a dictionary whose key is a doubled tuple, which takes years to hash."""
    tuples = pickle.dumps(doubled(tuple, levels), 4)[:-1]
    prefix, body = tuples[:2], tuples[11:]  # PROTO, FRAME
    return prefix + b"}" + body + b"Ns."
