"""Import stubs of torchtext, which MMF imports and which is no longer maintained."""

import importlib
from typing import Any

from mmf_flava.compat.patch import patch


@patch(
    "torchtext",
    when="virtual",
    what="torchtext is an empty package",
    why="mmf.utils.vocab imports torchtext for GloVe embeddings, and the last release of torchtext requires torch 2.3",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def package(module: Any) -> None:
    module.vocab = importlib.import_module("torchtext.vocab")


@patch(
    "torchtext.vocab",
    when="virtual",
    what="torchtext.vocab is a module without pretrained embeddings",
    why="mmf.utils.vocab imports torchtext.vocab, see the patch torchtext.package",
    since="torch 2.4",
    until="MMF imports torchtext only to load vectors",
)
def vocab(module: Any) -> None:
    module.pretrained_aliases = {}
