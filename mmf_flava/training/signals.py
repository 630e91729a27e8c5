"""Graceful shutdown on SIGTERM, Ctrl-C, SIGHUP, SIGUSR1 and a closed output.

A closed terminal sends SIGHUP, and Slurm can send SIGUSR1 before a job's time limit.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import torch

from mmf_flava.processes import mean_over_ranks, world_size

# Slurm sends SIGUSR1 with `sbatch --signal=USR1@120`
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
STOPPED = 75  # exit code of a run that a signal stopped: EX_TEMPFAIL of sysexits.h

T = TypeVar("T")


class StopRequest(BaseException):
    """Raised by a signal handler to interrupt an operation that can be abandoned.

    Derived from BaseException, because record readers treat every Exception as a bad record.
    """


class StopSignals:
    """Context manager that records the signals of ``SIGNALS`` as a stop request. A second Ctrl-C kills the process.

    SIGHUP stays ignored in a process that was started with ``nohup``.

    Attributes:
        name: name of the first signal received, "a closed stdout" or "a closed stderr"; None before a
            stop request.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}
        self._may_raise = False

    def __enter__(self) -> "StopSignals":
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS if number not in ignored}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore_while_exiting(self) -> None:
        """Ignore SIGTERM and SIGHUP after the context has been left.

        Call this method before a stopped process exits: torchrun sends SIGTERM to all processes when the first one
        exits, and passes a SIGHUP of the terminal on, which would change the exit codes of the others.
        """
        self._before.update({signal.SIGTERM: signal.SIG_IGN, signal.SIGHUP: signal.SIG_IGN})

    def output_closed(self, stream: str) -> None:
        """Record a closed stdout or stderr as a stop request."""
        self.name = self.name or f"a closed {stream}"
        if threading.current_thread() is threading.main_thread():
            self._check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
        self._check()

    def _check(self) -> None:
        if self.name is not None and self._may_raise:
            self._may_raise = False
            raise StopRequest

    def received_by_any(self, device: torch.device) -> bool:
        """Return whether any process received a signal. All processes must call this method after the same update."""
        if world_size() == 1:
            return self.name is not None
        return mean_over_ranks(torch.tensor(float(self.name is not None), device=device)).item() > 0

    def run_unless_stopped(self, work: Callable[[], T]) -> T | None:
        """Return ``work()``, or None if a signal interrupted it.

        ``work`` must not contain collectives: the other processes would wait for this one.
        """
        self._may_raise = True
        try:
            self._check()
            return work()
        except StopRequest:
            return None
        finally:
            self._may_raise = False
