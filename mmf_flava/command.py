"""Helpers for command-line programs. A user error is printed as one line, ``mmf_flava: ...``; the exit code is 2."""

import argparse
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmf_flava.errors import TOO_MANY_FILES, UserError, is_full_disk
from mmf_flava.packages import explain_missing

MAX_WORKERS = 1024  # largest number of data loader workers
MAX_INTEGER = 2**31 - 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class ArgumentParser(argparse.ArgumentParser):
    """Parser that raises UserError for invalid arguments. Its subparsers are of the same class."""

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").rstrip(".")
        raise UserError(f"{text}. `{self.prog} --help` lists the arguments.")


def integer(at_least: int, at_most: int = MAX_INTEGER) -> Callable[[str], int]:
    """Return an argparse ``type`` that accepts the integers from ``at_least`` to ``at_most``."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if at_least <= (number := int(text)) <= at_most:
                return number
        limit = f"of at least {at_least}" if at_most == MAX_INTEGER else f"from {at_least} to {at_most}"
        raise argparse.ArgumentTypeError(f"must be an integer {limit}, got {text!r}")

    return parse


def file_path(text: str) -> Path:
    """Parse a path (an argparse ``type``) and expand ``~``, which shells do not expand in --out=~/x."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a path, got an empty string")
    return Path(text).expanduser()


def bar_interval() -> float:
    """Return the seconds between updates of a progress bar: 0.2 on a terminal, 30 in a log file."""
    return 0.2 if sys.stderr.isatty() else 30


def end_on_sigterm() -> None:
    """Let SIGTERM, which torchrun and Slurm send, end this process as Ctrl-C does: progress is saved."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorate the main function of a command-line program, so that user errors are reported by ``report_error``.

    The decorated function takes a list of arguments (default: the arguments of the process) and returns the exit code
    of ``main`` or of ``report_error``.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None, **options: Any) -> int:
        try:
            code = main(arguments, **options) or 0
            sys.stdout.flush()  # flush here, so that a closed pipe is detected before Python exits
            return code
        except BaseException as error:
            if failed := report_error(error):
                return failed
            raise

    return run


@contextlib.contextmanager
def report_user_errors(
    unless: Callable[[], bool] = lambda: False, then: Callable[[BaseException], None] = lambda error: None
) -> Iterator[None]:
    """Context manager: print an error that the user can fix and exit; re-raise all other errors.

    Args:
        unless: function called after an error; if it returns True, the error is re-raised.
        then: function called with every error after it has been printed.
    """
    try:
        yield
    except BaseException as error:
        code = None if unless() else report_error(error)
        then(error)
        if not code:
            raise
        sys.exit(code)


def report_error(error: BaseException) -> int | None:
    """Print an error that the user can fix as one line on stderr, and return the exit code.

    Other errors are not printed, and None is returned.

    Exit codes: 2 for a UserError, an OSError about a file or a full disk, or a missing package that ``install_mmf``
    installs, 130 for Ctrl-C, 141 if stdout is a closed pipe. If a process that MMF spawned (one per GPU) has failed,
    the exit code of that process.
    """
    if isinstance(error, KeyboardInterrupt):
        return _print("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        # otherwise Python would flush stdout again at exit and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, UserError):
        return _print(_message(error))
    if isinstance(error, ModuleNotFoundError) and (missing := explain_missing(error)):
        return _print(missing)
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        return _print("too many files are open. Raise the limit with `ulimit -n` and run the command again.")
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        return _print(f"{_text(error.filename)}: {reason}. Correct the path or its permissions.")
    if is_full_disk(error):  # write() names no file
        return _print("the disk is full, or its quota is exceeded. Free disk space and run the command again.")
    # torch.multiprocessing's exceptions are compared by name, because torch may not be imported yet
    if type(error).__name__ == "ProcessExitedException" and (code := getattr(error, "exit_code", 0)) > 0:
        return code  # the process has printed its own error
    _, found, message = str(error).rpartition(f"\n{UserError.__module__}.UserError: ")
    if type(error).__name__ == "ProcessRaisedException" and found and "\nTraceback (" not in message:
        return _print(message.strip())
    return None


def _print(message: str, code: int = 2) -> int:
    print(f"mmf_flava: {message}", file=sys.stderr, flush=True)
    return code


def _message(error: UserError) -> str:
    text = str(error)
    # an error in a data loader worker is re-raised with the worker's traceback as its message
    return text.rpartition("UserError: ")[2].strip() if text.startswith("Caught ") else text


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
