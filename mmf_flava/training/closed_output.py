"""Output that cannot be written, because its pipe or terminal was closed or its disk is full."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

METHODS = ("write", "flush")


@contextlib.contextmanager
def handle_closed_output(closed: Callable[[str], None]) -> Iterator[None]:
    """Context manager: call ``closed`` when stdout or stderr cannot be written, and discard their output from then on.

    Otherwise ``print`` and progress bars raise an exception, and ``logging`` prints a traceback for each record.

    Args:
        closed: called with the name of the stream.
    """
    # the loggers may have the original streams: MMF replaces sys.stdout
    streams = {
        id(stream): (name, stream)
        for name in ("stdout", "stderr")
        for stream in (getattr(sys, name), getattr(sys, f"__{name}__"))
        if stream is not None
    }
    for name, stream in streams.values():
        for method in METHODS:
            setattr(stream, method, _guard(getattr(stream, method), name, stream, closed))
    try:
        yield
    finally:
        for _, stream in streams.values():
            for method in METHODS:
                delattr(stream, method)


def _guard(call: Callable[..., Any], name: str, stream: Any, closed: Callable[[str], None]) -> Callable[..., Any]:
    def guarded(*args: Any) -> Any:
        try:
            return call(*args)
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # a stream of a test has no file descriptor
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
            closed(name)
            return len(args[0]) if args else None

    return guarded
