"""The flat names that transformers' modules had up to version 3, found when they are asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType

from mmf_flava.compat.cure import cure


class FlatNames(MetaPathFinder, Loader):
    """Answers ``transformers.modeling_bert`` with the module ``transformers.models.bert.modeling_bert`` itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root != "transformers" or name not in _places():
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.partition(".")[2]
        # the import system hands out what lies here when the module has been executed
        sys.modules[module.__name__] = importlib.import_module(f"transformers.models.{_places()[name]}.{name}")


@functools.cache
def _places() -> dict[str, str]:
    """``{"modeling_bert": "bert", ...}``: the package of each file below ``transformers/models``."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "models")
    return {file.stem: file.parent.name for file in sorted(folder.glob("*/*.py")) if file.stem != "__init__"}


@cure(
    "mmf.utils.patch",
    when="after",
    what="transformers' former flat names are found when they are asked for",
    why="MMF imports every model that transformers has, 4,000 files, so as to give each its former name: 7 of the 12 "
    "seconds that importing MMF takes",
    since="transformers 4.0",
    until="MMF imports from transformers.models",
    needed=lambda module: hasattr(module, "patch_transformers"),
)
def flat_names(module: ModuleType) -> None:
    def patch_transformers(log_incompatible: bool = False) -> None:
        # last, so that a module which transformers still has stays what it is
        if not any(isinstance(finder, FlatNames) for finder in sys.meta_path):
            sys.meta_path.append(FlatNames())

    vars(module)["patch_transformers"] = patch_transformers
