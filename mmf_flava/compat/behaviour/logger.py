"""MMF's log: an unwritable folder, repeated warnings, and records of several processes."""

import logging
import os
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.errors import UserError


@patch(
    "mmf.utils.logger",
    what="an env.save_dir that cannot be written is a one-line error",
    why="the logger is the first to write to env.save_dir, and MMF prints a traceback",
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
                f"env.save_dir: {folder} cannot be written ({reason}). Free disk space, change its permissions, or "
                "choose another folder."
            ) from error


@patch(
    "mmf.utils.logger",
    what="a Python warning is logged once",
    why="MMF attaches its handlers both to the logger of warnings and to the root logger, to which warnings propagate",
    since="MMF's main branch",
    until="MMF attaches them to one of the two",
    needed=source_contains("warnings_logger", "setup_logger"),
)
def warnings_once(module: Any) -> None:
    @wrap(module, "setup_logger", only_if=flava_run.is_current)
    def setup_logger(original: Any, *args: Any, **options: Any) -> Any:
        logger = original(*args, **options)
        warnings = logging.getLogger("py.warnings")
        # processes to which MMF attaches no handler there keep the root's
        warnings.propagate = not warnings.handlers
        return logger


@patch(
    "mmf.utils.logger",
    what="before the process group exists, only the first process logs below the level of warnings",
    why="every process started by torchrun or Slurm prints the options, all at the same time",
    since="MMF's main branch",
    until="MMF reads RANK",
    needed=lambda module: hasattr(module, "setup_very_basic_config"),
)
def first_lines(module: Any) -> None:
    @wrap(module, "setup_very_basic_config", only_if=flava_run.is_current)
    def setup_very_basic_config(original: Any, *args: Any, **options: Any) -> None:
        original(*args, **options)
        if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
            logging.root.setLevel(logging.WARNING)
