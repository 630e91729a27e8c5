"""Import stub of a module that MMF imports and that pytorch-lightning 2 has removed."""

import importlib
from typing import Any

from mmf_flava.compat.patch import patch


@patch(
    "pytorch_lightning.callbacks.base",
    when="virtual",
    what="the module pytorch_lightning.callbacks.base exists and contains Callback",
    why="MMF's Lightning trainer imports its base class from this module, which was removed",
    since="pytorch-lightning 2.0",
    until="MMF imports Callback from pytorch_lightning.callbacks",
)
def callbacks(module: Any) -> None:
    module.Callback = importlib.import_module("pytorch_lightning.callbacks").Callback
