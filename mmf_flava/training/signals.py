"""Being asked to stop: SIGTERM, Ctrl-C, and the warning that Slurm sends before a job's time is over."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import torch

from mmf_flava.ranks import mean_over_ranks

# SIGUSR1 is what `sbatch --signal=USR1@120` asks Slurm for
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOPPED = 75  # the exit code of a run that stopped when asked to: EX_TEMPFAIL of sysexits.h, "try again"

T = TypeVar("T")


class StopRequest(BaseException):
    """Raised where waiting for the end of what is being done would only lose time.

    No Exception: whoever reads a record takes any of these for a bad record.
    """


class Signals:
    """While it is entered, a signal asks for a stop instead of ending the process; a second Ctrl-C ends it at once.

    Attributes:
        name: of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}
        self._may_raise = False

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ending(self) -> None:
        """From now on SIGTERM is ignored, after leaving too.

        For a process that is about to end as it was asked to: torchrun sends SIGTERM to all of them as soon as the
        first has ended, and the exit code of one that is slower would be another.
        """
        self._before[signal.SIGTERM] = signal.SIG_IGN

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
        self._check()

    def _check(self) -> None:
        if self.name is not None and self._may_raise:
            self._may_raise = False
            raise StopRequest

    def came_to_any(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; all of them must call it, after the same update."""
        return mean_over_ranks(torch.tensor(float(self.name is not None), device=device)).item() > 0

    def unless_stopped(self, work: Callable[[], T]) -> T | None:
        """``work()``; None where a signal came before its end, which is not waited for.

        For work that no other process takes part in: it would wait for this one.
        """
        self._may_raise = True
        try:
            self._check()
            return work()
        except StopRequest:
            return None
        finally:
            self._may_raise = False
