"""Patches of ``mmf_run`` and ``mmf_predict``: one-line error messages, and a fast start."""

import atexit
import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, report_user_errors
from mmf_flava.compat import command_line, flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.errors import UserError

UNTIL_LAZY = "MMF imports its models only when they are used"


def _in_flava_script(_: Any) -> bool:
    return command_line.in_script() and flava_run.process_is_flava()


collector = partial(
    patch,
    "mmf_cli.run",
    why="the imports create half a million objects that live until the end; looking for garbage among them takes a "
    "second of processor time",
    since="Python 3.11",
    until=UNTIL_LAZY,
    needed=_in_flava_script,
)


@collector(when="before", what="the garbage collector is off while MMF is imported")
def pause_collector(_: None) -> None:
    gc.disable()


@collector(what="the garbage collector is on again, and skips the imported objects")
def resume_collector(_: Any) -> None:
    gc.freeze()
    atexit.register(gc.unfreeze)  # nanobind prints the objects that the interpreter does not free at its end
    gc.enable()


@patch(
    "mmf_cli.run",
    what="a UserError ends the run with a one-line message and exit code 2; Ctrl-C ends it with exit code 130",
    why="MMF prints a long traceback for a misspelt option",
    since="MMF 1.0.0rc1",
    until="MMF distinguishes invalid input from its own errors",
)
def run(module: Any) -> None:
    @wrap(module, "run")
    def run(original: Any, opts: list[str] | None = None, predict: bool = False) -> None:
        # with opts, run() was called by a program, which handles exceptions itself
        if opts is not None or not flava_run.options_are_flava(command_line.options()):
            original(opts, predict)
            return
        with report_user_errors(then=_tell_other_processes):
            module.flags.get_parser().__class__ = ArgumentParser
            original(None, predict)


@patch(
    "mmf_cli.run",
    when="before",
    what="the recipe and the command line are checked before torch and MMF are imported",
    why="importing MMF takes seconds, and half a minute from a cold disk",
    since="MMF 1.0.0rc1",
    until=UNTIL_LAZY,
    needed=lambda _: _in_flava_script(_) and importlib.util.find_spec("mmf") is not None,
)
def early_check(_: None) -> None:
    with report_user_errors(then=_tell_other_processes):
        check_sections(command_line.options(), _default_sections())
        check_config()


def _tell_other_processes(error: BaseException) -> None:
    from mmf_flava.compat.process_recipes import report_failure  # imports torch if there are other processes

    report_failure(error)


def check_config() -> None:
    """Check the complete config. Errors that are not the user's are left to the check after the import of MMF."""
    from mmf_flava.compat import early_config

    if "--config_override" in "".join(sys.argv):
        return
    try:
        mmf, torch = (Path(str(importlib.util.find_spec(name).origin)).parent for name in ("mmf", "torch"))  # type: ignore[union-attr]
        early_config.check(command_line.options(), mmf, torch)
    except UserError:
        raise
    except Exception:
        return


def check_sections(opts: Sequence[str], known: set[str]) -> None:
    """Raise UserError if an option begins with a misspelt section: a word similar to one of MMF's sections.

    Other unknown keys are reported later, when the sections of models, datasets and the recipe are known.
    """
    if not opts or "=" not in opts[0]:
        return
    for key, value in command_line.split_options(opts):
        section, dot, rest = key.partition(".")
        section = section.partition("[")[0]
        if section not in known and (matches := close_matches(section, known, 0.8)):
            hint = did_you_mean([f"{match}{dot}{rest}" for match in matches])
            raise UserError(f"Unknown option {key}={value}: the configuration has no section {section!r}; {hint}")


def _default_sections() -> set[str]:
    import yaml

    spec = importlib.util.find_spec("mmf")
    assert spec is not None and spec.origin is not None
    with open(os.path.join(os.path.dirname(spec.origin), "configs", "defaults.yaml"), encoding="utf-8") as file:
        defaults: dict[str, Any] = yaml.safe_load(file)
    return {*defaults, "dataset", "learning_rate"}
