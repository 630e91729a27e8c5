"""torchtext, which MMF imports for its vocabularies, and which is no longer maintained."""

import importlib
from typing import Any

from mmf_flava.compat.patch import patch


@patch(
    "torchtext",
    when="virtual",
    what="an empty package torchtext",
    why="mmf.utils.vocab imports it for pretrained GloVe vectors, and its last release requires torch 2.3",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def package(module: Any) -> None:
    module.vocab = importlib.import_module("torchtext.vocab")


@patch(
    "torchtext.vocab",
    when="virtual",
    what="a module torchtext.vocab without pretrained vectors",
    why="see torchtext.package",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def vocab(module: Any) -> None:
    module.pretrained_aliases = {}
