"""Command line of MMF's scripts: ``key=value`` options and one-line error messages."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmf_flava.errors import UserError

SCRIPTS = ("mmf_run", "mmf_predict")


def in_script() -> bool:
    """Return whether this process was started as ``mmf_run`` or ``mmf_predict``."""
    return Path(sys.argv[0]).stem in SCRIPTS if sys.argv else False


def options() -> list[str]:
    """Return the ``key=value`` options of the command line."""
    return [word for word in sys.argv[1:] if not word.startswith("-")]


def split_options(opts: Sequence[str]) -> list[tuple[str, str]]:
    """Split ``["a.b=c=d"]`` into ``[("a.b", "c=d")]``.

    If the first word has no '=', the options have MMF's older form ``["a.b", "c=d"]``.

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


@contextlib.contextmanager
def report_user_errors(only_in_scripts: bool = False) -> Iterator[None]:
    """Print a UserError as one line on stderr and exit with code 2; exit with 130 on Ctrl-C.

    A UserError in a process that MMF spawned, one per GPU, is handled in the same way: this process exits with the exit
    code of the spawned process. Other exceptions are re-raised with their traceback.

    Args:
        only_in_scripts: re-raise a UserError if this process is not ``mmf_run`` or ``mmf_predict``.
    """
    try:
        yield
    except UserError as error:
        if only_in_scripts and not in_script():
            raise
        print(f"mmf_flava: {_message(error)}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mmf_flava: interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:
        # torch.multiprocessing's exceptions are compared by name, because torch may not be imported yet
        if type(error).__name__ == "ProcessExitedException" and (code := getattr(error, "exit_code", 0)) > 0:
            sys.exit(code)  # the process has printed its own error
        _, found, message = str(error).rpartition(f"\n{UserError.__module__}.UserError: ")
        if type(error).__name__ != "ProcessRaisedException" or not found or "\nTraceback (" in message:
            raise
        print(f"mmf_flava: {message.strip()}", file=sys.stderr, flush=True)
        sys.exit(2)


def _message(error: UserError) -> str:
    text = str(error)
    # an error in a data loader worker is re-raised with the worker's traceback as its message
    return text.rpartition("UserError: ")[2].strip() if text.startswith("Caught ") else text
