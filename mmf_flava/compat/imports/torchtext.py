"""torchtext, which MMF imports for its vocabularies, and which is no longer maintained."""

from __future__ import annotations

import importlib
from types import ModuleType

from mmf_flava.compat.patch import patch


@patch(
    "torchtext",
    when="virtual",
    what="an empty package torchtext",
    why="mmf.utils.vocab imports it for pretrained GloVe vectors, and its last release requires torch 2.3",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def package(module: ModuleType) -> None:
    vars(module)["vocab"] = importlib.import_module("torchtext.vocab")


@patch(
    "torchtext.vocab",
    when="virtual",
    what="a module torchtext.vocab without pretrained vectors",
    why="see torchtext.package",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def vocab(module: ModuleType) -> None:
    vars(module)["pretrained_aliases"] = {}
