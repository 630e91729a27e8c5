"""What ``mmf_run`` and ``mmf_predict`` say when something is wrong: a sentence, not a traceback."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, source_has
from mmf_flava.compat.overrides import split
from mmf_flava.config.nearness import did_you_mean, near
from mmf_flava.errors import UserError

SCRIPTS = ("mmf_run", "mmf_predict")


@contextlib.contextmanager
def spoken() -> Iterator[None]:
    """Turns a UserError into its message on stderr and exit code 2, Ctrl-C into 130; the rest keeps its traceback.

    So it does with what has ended one of the processes that MMF spawns, one for each GPU; their exit code becomes ours.
    """
    try:
        yield
    except UserError as error:
        print(f"mmf_flava: {_message(error)}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mmf_flava: interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        # torch.multiprocessing's, by their names: a mistake may be found before torch is imported
        if type(error).__name__ == "ProcessExitedException" and (code := getattr(error, "exit_code", 0)) > 0:
            sys.exit(code)  # it has said why
        _, found, message = str(error).rpartition(f"\n{UserError.__module__}.UserError: ")
        if type(error).__name__ != "ProcessRaisedException" or not found or "\nTraceback (" in message:
            raise
        print(f"mmf_flava: {message.strip()}", file=sys.stderr, flush=True)
        sys.exit(2)


def _message(error: UserError) -> str:
    text = str(error)
    # one that was raised in a DataLoader worker arrives with the worker's traceback for a message
    return text.rpartition("UserError: ")[2].strip() if text.startswith("Caught ") else text


@cure(
    "mmf_cli.run",
    when="after",
    what="a user's mistake ends in one sentence and exit code 2",
    why="MMF shows fifty lines of traceback for a misspelt word",
    since="MMF 1.0.0rc1",
    until="MMF tells users' mistakes from its own",
)
def run(module: ModuleType) -> None:
    mmf_run = module.run

    @functools.wraps(mmf_run)
    def run(opts: list[str] | None = None, predict: bool = False) -> None:
        if opts is not None:  # called by a program, which wants the exception
            mmf_run(opts, predict)
            return
        with spoken():
            mmf_run(None, predict)

    vars(module)["run"] = run


@cure(
    "mmf.utils.logger",
    when="after",
    what="a folder that cannot be written to is named, and what to do about it",
    why="the logger is the first to write to env.save_dir, and MMF shows a traceback where it cannot",
    since="MMF 1.0.0rc1",
    until="MMF tells users' mistakes from its own",
)
def writable_folder(module: ModuleType) -> None:
    if hasattr(module, "Logger"):
        owner, name = module.Logger, "__init__"
    else:  # MMF's main branch logs through functions
        owner, name = module, "setup_logger"
    begin = getattr(owner, name)

    @functools.wraps(begin)
    def begin_in_writable_folder(*args: Any, **options: Any) -> Any:
        try:
            return begin(*args, **options)
        except OSError as error:
            reason = str(error.strerror).lower()
            place = error.filename or module.get_mmf_env(key="save_dir")
            raise UserError(
                f"env.save_dir: {place} cannot be written ({reason}): make room or make it writable, or choose "
                "another folder."
            ) from error

    setattr(owner, name, begin_in_writable_folder)


@cure(
    "mmf.utils.logger",
    when="after",
    what="a Python warning is logged once",
    why="MMF gives its handlers to the logger of warnings and to the root, to which warnings go on",
    since="MMF's main branch",
    until="MMF gives them to one of the two",
    needed=source_has("warnings_logger", "setup_logger"),
)
def warnings_once(module: ModuleType) -> None:
    setup = module.setup_logger

    @functools.wraps(setup)
    def setup_logger(*args: Any, **options: Any) -> Any:
        logger = setup(*args, **options)
        warnings = logging.getLogger("py.warnings")
        # on processes that MMF gives no handler there, the root's alone are left
        warnings.propagate = not warnings.handlers
        return logger

    vars(module)["setup_logger"] = setup_logger


@cure(
    "mmf.utils.logger",
    when="after",
    what="until MMF knows its processes, the first alone says what it does",
    why="every process that torchrun or Slurm has started prints the options, in a mixture that nobody can read",
    since="MMF's main branch",
    until="MMF looks at RANK",
    needed=lambda module: hasattr(module, "setup_very_basic_config"),
)
def first_lines(module: ModuleType) -> None:
    setup = module.setup_very_basic_config

    @functools.wraps(setup)
    def setup_very_basic_config(*args: Any, **options: Any) -> None:
        setup(*args, **options)
        if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0:
            logging.root.setLevel(logging.WARNING)

    vars(module)["setup_very_basic_config"] = setup_very_basic_config


@cure(
    "mmf_cli.run",
    when="before",
    what="a misspelt section on the command line is found before MMF is imported",
    why="importing MMF takes seconds, and half a minute from a cold disk",
    since="MMF 1.0.0rc1",
    until="MMF imports its models only when they are asked for",
    needed=lambda _: Path(sys.argv[0]).stem in SCRIPTS and importlib.util.find_spec("mmf") is not None,
)
def early_check(_: None) -> None:
    with spoken():
        check_sections([word for word in sys.argv[1:] if not word.startswith("-")], _default_sections())


def check_sections(opts: list[str], known: set[str]) -> None:
    """Refuses an option whose first word is nearly, but not quite, one of MMF's sections.

    What resembles nothing is left to the full check, which also knows what models, datasets and the YAML add.
    """
    if not opts or "=" not in opts[0]:
        return
    for key, value in split(opts):
        section, dot, rest = key.partition(".")
        section = section.partition("[")[0]
        if section not in known and (misses := near(section, known, 0.8)):
            hint = did_you_mean([f"{miss}{dot}{rest}" for miss in misses])
            raise UserError(f"unknown option {key}={value} on the command line: there is no {section!r}; {hint}")


def _default_sections() -> set[str]:
    import yaml

    spec = importlib.util.find_spec("mmf")
    assert spec is not None and spec.origin is not None
    with open(os.path.join(os.path.dirname(spec.origin), "configs", "defaults.yaml"), encoding="utf-8") as file:
        defaults: dict[str, Any] = yaml.safe_load(file)
    return {*defaults, "dataset", "learning_rate"}
