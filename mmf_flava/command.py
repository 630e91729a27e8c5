"""The wrapper of all command lines: a user error is one line on stderr, ``mmf_flava: ...``, and exit code 2."""

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmf_flava.errors import UserError

MAX_WORKERS = 1024  # largest number of data loader workers
MAX_INTEGER = 2**31 - 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class ArgumentParser(argparse.ArgumentParser):
    """Parser that raises UserError for invalid arguments. Subparsers are of the same class."""

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").rstrip(".")
        raise UserError(f"{text}. `{self.prog} --help` lists the arguments.")


def integer(at_least: int, at_most: int = MAX_INTEGER) -> Callable[[str], int]:
    """Return a ``type`` of argparse: an integer in this range."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if at_least <= (number := int(text)) <= at_most:
                return number
        limit = f"of at least {at_least}" if at_most == MAX_INTEGER else f"from {at_least} to {at_most}"
        raise argparse.ArgumentTypeError(f"must be an integer {limit}, got {text!r}")

    return parse


def file_path(text: str) -> Path:
    """A ``type`` of argparse: a path, in which ``~`` is expanded, because shells do not expand it in --out=~/x."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a path, got an empty string")
    return Path(text).expanduser()


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorator of the main function of a command line, which receives the arguments (None: those of the process).

    The decorated function returns the exit code: that of ``main``, or the one of ``report_error``.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None, **options: Any) -> int:
        try:
            code = main(arguments, **options) or 0
            sys.stdout.flush()  # here, so that a closed pipe is found before Python exits
            return code
        except BaseException as error:
            if failed := report_error(error):
                return failed
            raise

    return run


@contextlib.contextmanager
def report_user_errors(unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Exit with the code of ``report_error`` after an error that it reports; re-raise the others.

    Args:
        unless: if it returns True, all errors are re-raised.
    """
    try:
        yield
    except BaseException as error:
        code = None if unless() else report_error(error)
        if not code:
            raise
        sys.exit(code)


def report_error(error: BaseException) -> int | None:
    """Print an error that the user can fix as one line on stderr, and return the exit code; None for other errors.

    2: a UserError, or an error of the operating system about a file. 130: Ctrl-C. 141: stdout is a closed pipe. An
    error of a process that MMF spawned, one per GPU, gives the exit code of that process.
    """
    if isinstance(error, KeyboardInterrupt):
        return _print("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        # otherwise Python flushes stdout again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, UserError):
        return _print(_message(error))
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        return _print(f"{_text(error.filename)}: {reason}. Correct the path or its permissions.")
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
