"""Parsing of the command line of MMF's scripts, which consists of ``key=value`` options."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.errors import UserError

SCRIPTS = ("mmf_run", "mmf_predict")


def in_script() -> bool:
    """Return whether this process was started as ``mmf_run`` or ``mmf_predict``."""
    return Path(sys.argv[0]).stem in SCRIPTS if sys.argv else False


def is_prediction() -> bool:
    """Return whether this process runs ``mmf_predict``, which does not train, whatever ``run_type`` is."""
    return bool(sys.argv) and Path(sys.argv[0]).stem == "mmf_predict"


def options() -> list[str]:
    """Return the ``key=value`` options of the command line."""
    return [word for word in sys.argv[1:] if not word.startswith("-")]


def split_options(opts: Sequence[str]) -> list[tuple[str, str]]:
    """Split options into pairs of key and value: ``["a.b=c=d"]`` becomes ``[("a.b", "c=d")]``.

    MMF's older form, in which keys and values are separate words (``["a.b", "c=d"]``), is supported too.

    Raises:
        UserError: an option does not have the form key=value.
    """
    if opts and "=" not in opts[0]:
        if len(opts) % 2 or opts[0].endswith((".yaml", ".yml")):
            raise UserError(f"Invalid option {opts[0]!r}: expected key=value.{_config_hint(opts[0])}")
        return list(zip(opts[0::2], opts[1::2], strict=True))
    for opt in opts:
        if "=" not in opt:
            raise UserError(f"Invalid option {opt!r}: expected key=value.{_config_hint(opt)}")
    return [(key, value) for key, _, value in (opt.partition("=") for opt in opts)]


def _config_hint(word: str) -> str:
    return f" Did you mean config={word}?" if word.endswith((".yaml", ".yml")) else ""
