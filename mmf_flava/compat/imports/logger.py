"""MMF's logger with current versions of Python."""

from __future__ import annotations

import collections
from types import ModuleType

from mmf_flava.compat.patch import patch, source_contains


@patch(
    "mmf.utils.logger",
    when="after",
    what="collections.Mapping is collections.abc.Mapping",
    why="Python has removed the old name, and MMF reads it for every log record",
    since="Python 3.10",
    until="MMF uses collections.abc.Mapping",
    needed=source_contains("collections.Mapping", "Logger.log_progress"),
)
def mapping(module: ModuleType) -> None:
    vars(module)["collections"] = collections.abc
