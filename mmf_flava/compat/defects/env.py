"""Patch of ``env.user_dir``, the package with the user's code."""

import os
import sys
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


@patch(
    "mmf.utils.env",
    what="env.user_dir=name is found in the working directory",
    why="MMF adds the parent folder to sys.path only if the name contains a folder, and mmf_run's sys.path does not "
    "contain the working directory",
    since="MMF's main branch",
    until="MMF always adds the parent folder",
    needed=source_contains("module_name != dot_path", "import_user_module"),
)
def user_dir(module: Any) -> None:
    @wrap(module, "import_user_module")
    def import_user_module(original: Any, user_dir: str) -> None:
        if user_dir and os.sep not in user_dir and os.path.exists(user_dir) and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        original(user_dir)
