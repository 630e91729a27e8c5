"""Faults of calls of the operating system in this process: the n-th call fails, or the process is killed."""

import builtins
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from safetensors import SafetensorError

from mmf_flava.training import checkpoint

CALLS = ("open", "close", "fsync", "replace", "mkdir", "rmdir", "unlink", "stat", "lstat", "listdir", "scandir")
Fault = Callable[[], None]


class FaultyCalls:
    """Counts the calls of ``CALLS``, of writes of files and of safetensors, and lets one of them fail.

    Args:
        number: the first call that fails, counted from 1; 0: none.
        error: the error number, or None to kill the process with SIGKILL.
        lasting: whether all later calls fail too.
    """

    def __init__(self, number: int = 0, error: int | None = None, lasting: bool = False) -> None:
        self.number, self.error, self.lasting, self.count = number, error, lasting, 0

    @contextmanager
    def active(self) -> Iterator["FaultyCalls"]:
        """Context manager: replace the functions."""
        with mock.patch.multiple(os, **{name: self._wrap(getattr(os, name)) for name in CALLS}):
            opened = self._wrap_open(io.open)
            with (
                mock.patch.object(io, "open", opened),
                mock.patch.object(builtins, "open", opened),
                mock.patch.object(checkpoint, "save_file", self._wrap_save_file(checkpoint.save_file)),
            ):
                yield self

    def _enter(self, path: Any = None, safetensors: bool = False) -> None:
        self.count += 1
        if self.number and (self.count == self.number or (self.lasting and self.count > self.number)):
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            if safetensors:
                raise SafetensorError(f"I/O error: Os {{ code: {self.error}, kind: Other, message: ... }}")
            raise OSError(self.error, os.strerror(self.error), path if isinstance(path, str) else None)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if function.__name__ == "close":  # the descriptor is closed even if the system call fails
                function(*args, **options)
                return self._enter()
            self._enter(*map(str, args[:1]))
            return function(*args, **options)

        return call

    def _wrap_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any, **options: Any) -> Any:
            self._enter(*map(str, args[:1]))
            file = function(*args, **options)
            return _File(file, self._enter) if file.writable() else file

        return opened

    def _wrap_save_file(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def save_file(tensors: Any, path: Any, *args: Any, **options: Any) -> None:
            self._enter(safetensors=True)
            with open(path, "wb") as partial:
                partial.write(b"partial")
            self._enter(safetensors=True)
            function(tensors, path, *args, **options)

        return save_file


class _File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, enter: Fault) -> None:
        self._file, self._enter = file, enter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, content: Any) -> int:
        self._enter()
        return self._file.write(content)
