"""Patch of MMF's logger for current versions of Python."""

import collections
from typing import Any

from mmf_flava.compat.patch import patch, source_contains


@patch(
    "mmf.utils.logger",
    what="collections.Mapping is collections.abc.Mapping",
    why="Python has removed the old name, which MMF uses for every log record",
    since="Python 3.10",
    until="MMF uses collections.abc.Mapping",
    needed=source_contains("collections.Mapping", "Logger.log_progress"),
)
def mapping(module: Any) -> None:
    module.collections = collections.abc
