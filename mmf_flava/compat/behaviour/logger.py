"""Patches of MMF's log: unwritable folder, repeated warnings, and records of several processes."""

import logging
import os
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.errors import UserError


@patch(
    "mmf.utils.logger",
    what="if env.save_dir cannot be written to, a one-line error is printed",
    why="MMF's logger writes to env.save_dir first, and MMF prints a traceback",
    since="MMF 1.0.0rc1",
    until="MMF distinguishes invalid input from its own errors",
)
def writable_folder(module: Any) -> None:
    # MMF's main branch logs through functions
    owner, name = (module.Logger, "__init__") if hasattr(module, "Logger") else (module, "setup_logger")

    @wrap(owner, name, only_if=flava_run.is_current)
    def start(original: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(*args, **options)
        except OSError as error:
            reason = str(error.strerror).lower()
            folder = error.filename or module.get_mmf_env(key="save_dir")
            raise UserError(
                f"env.save_dir: {folder} cannot be written ({reason}). Free disk space, change the permissions, or "
                "set another folder."
            ) from error


@patch(
    "mmf.utils.logger",
    what="a Python warning is logged once",
    why="MMF adds its handlers to the logger py.warnings and to the root logger, to which warnings propagate",
    since="MMF's main branch",
    until="MMF adds the handlers to one of the two loggers",
    needed=source_contains("warnings_logger", "setup_logger"),
)
def warnings_once(module: Any) -> None:
    @wrap(module, "setup_logger", only_if=flava_run.is_current)
    def setup_logger(original: Any, *args: Any, **options: Any) -> Any:
        logger = original(*args, **options)
        warnings = logging.getLogger("py.warnings")
        # in processes where py.warnings has no handlers, the root logger's handlers log the warnings
        warnings.propagate = not warnings.handlers
        return logger


@patch(
    "mmf.utils.logger",
    what="before the process group is created, all processes except the first log only warnings and errors",
    why="each process started by torchrun or Slurm prints the options",
    since="MMF's main branch",
    until="MMF reads the environment variable RANK",
    needed=lambda module: hasattr(module, "setup_very_basic_config"),
)
def first_lines(module: Any) -> None:
    @wrap(module, "setup_very_basic_config", only_if=flava_run.is_current)
    def setup_very_basic_config(original: Any, *args: Any, **options: Any) -> None:
        original(*args, **options)
        if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
            logging.root.setLevel(logging.WARNING)
