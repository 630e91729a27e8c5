"""Memory and open files of a process, looked at from outside while it runs."""

import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOLERANCE = 0.03  # by which memory may grow


class Growth:
    """Samples a process through /proc, in a thread, until it ends.

    Args:
        pid: of the process.
        updates: says how many updates it has done; the same count is not sampled twice.
    """

    def __init__(self, pid: int, updates: Callable[[], int], pause: float = 0.02) -> None:
        self.process, self.updates, self.pause = Path(f"/proc/{pid}"), updates, pause
        self.samples: list[tuple[int, int, int]] = []  # update, bytes of memory, open files
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._ended = threading.Event()

    def __enter__(self) -> "Growth":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(self.pause):
            update = self.updates()
            if self.samples and self.samples[-1][0] == update:
                continue
            try:
                status = (self.process / "status").read_text()
                handles = len(list((self.process / "fd").iterdir()))
            except OSError:  # it has ended
                return
            if "VmRSS:" in status:  # a dead process that nobody has waited for has none
                self.samples.append((update, 1024 * int(status.partition("VmRSS:")[2].split()[0]), handles))

    def result(self, updates: int) -> dict[str, Any]:
        """Medians of the second and the last quarter of a run of ``updates``: the first one fills caches.

        Each tensor that a loader's worker has sent and nobody has read yet is an open file, so that their number goes
        up and down with the batches; what is never closed raises the least number.
        """
        quarters: dict[int, list[tuple[int, int]]] = {1: [], 3: []}
        for update, memory, handles in self.samples:
            # what evaluates and reports when training is over is no part of it
            if 0 < update < updates and (quarter := 4 * update // updates) in quarters:
                quarters[quarter].append((memory, handles))
        second, last = (
            {
                "memory MB": round(statistics.median(memory for memory, _ in found) / 1e6, 1),
                "handles": statistics.median_low(handles for _, handles in found),
                "least handles": min(handles for _, handles in found),
                "samples": len(found),
            }
            for found in quarters.values()
        )
        grown = last["memory MB"] / second["memory MB"] - 1
        return {
            "proof": "memory and handles",
            "second quarter": second,
            "last quarter": last,
            "memory grown by": round(grown, 4),
            "holds": grown <= TOLERANCE and last["least handles"] == second["least handles"],
        }
