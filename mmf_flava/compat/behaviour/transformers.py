"""Patch that resolves the flat module names of transformers 3, such as ``transformers.modeling_bert``, on import."""

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap


class FlatNames(MetaPathFinder, Loader):
    """Import finder and loader that resolves, for example, ``transformers.modeling_bert`` to the module in
    ``transformers.models.bert``.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root != "transformers" or name not in _packages():
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.partition(".")[2]
        # the import system returns this entry of sys.modules after exec_module
        sys.modules[module.__name__] = importlib.import_module(f"transformers.models.{_packages()[name]}.{name}")


@functools.cache
def _packages() -> dict[str, str]:
    """Return the package of each module in ``transformers/models``, e.g. ``{"modeling_bert": "bert"}``."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "models")
    return {file.stem: file.parent.name for file in sorted(folder.glob("*/*.py")) if file.stem != "__init__"}


@patch(
    "mmf.utils.patch",
    what="transformers' flat module names are resolved when a module is imported",
    why="MMF imports all 4,000 files of transformers' models to add their flat names, which takes 7 of the 12 seconds "
    "of importing MMF",
    since="transformers 4.0",
    until="MMF imports from transformers.models",
    needed=lambda module: hasattr(module, "patch_transformers"),
)
def flat_names(module: Any) -> None:
    @wrap(module, "patch_transformers", only_if=flava_run.is_current)
    def patch_transformers(original: Any, log_incompatible: bool = False) -> None:
        # appended, so that existing modules are found first
        if not any(isinstance(finder, FlatNames) for finder in sys.meta_path):
            sys.meta_path.append(FlatNames())
