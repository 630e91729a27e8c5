"""Patch that imports scikit-learn when one of its functions is first called."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch

NAME = "sklearn.metrics"


class Postponed(ModuleType):
    """Replaces a module in ``sys.modules`` for the next ``from MODULE import FUNCTIONS``.

    The functions that this statement finds import the real module when they are called.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]  # other importers get the real module

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call


@patch(
    "mmf.modules.metrics",
    when="before",
    what="scikit-learn is imported by the first metric that uses it",
    why="it takes 1.5 of the 9 seconds of processor time from the start to the first update, and most runs compute "
    "none of its metrics",
    since="MMF 1.0.0rc10",
    until="MMF imports scikit-learn in the metrics that use it",
    needed=lambda _: NAME not in sys.modules,
)
def scikit_learn(_: None) -> None:
    if flava_run.is_current():
        sys.modules[NAME] = Postponed(NAME)
