"""Monitoring of the memory and open files of a process through /proc."""

import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOLERANCE = 0.03  # allowed relative growth of memory


class ResourceMonitor:
    """Samples memory and open files of a process in a thread until the process exits.

    Args:
        pid: ID of the process.
        updates: returns the number of completed updates; every number is sampled at most once.
        pause: seconds between samples.
    """

    def __init__(self, pid: int, updates: Callable[[], int], pause: float = 0.02) -> None:
        self.process, self.updates, self.pause = Path(f"/proc/{pid}"), updates, pause
        self.samples: list[tuple[int, int, int]] = []  # update, bytes of memory, open files
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._ended = threading.Event()

    def __enter__(self) -> "ResourceMonitor":
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
                open_files = len(list((self.process / "fd").iterdir()))
            except OSError:  # the process has exited
                return
            if "VmRSS:" in status:  # missing for a zombie process
                self.samples.append((update, 1024 * int(status.partition("VmRSS:")[2].split()[0]), open_files))

    def result(self, updates: int) -> dict[str, Any]:
        """Compare the second and the last quarter of a run of ``updates``; the first quarter fills caches.

        Every unread tensor from a data loader worker is an open file, so the number of open files fluctuates; a leak
        raises its minimum.
        """
        quarters: dict[int, list[tuple[int, int]]] = {1: [], 3: []}
        for update, memory, open_files in self.samples:
            # excludes the evaluation and the report after training
            if 0 < update < updates and (quarter := 4 * update // updates) in quarters:
                quarters[quarter].append((memory, open_files))
        second, last = (
            {
                "memory MB": round(statistics.median(memory for memory, _ in found) / 1e6, 1),
                "open files": statistics.median_low(files for _, files in found),
                "minimum open files": min(files for _, files in found),
                "samples": len(found),
            }
            for found in quarters.values()
        )
        growth = last["memory MB"] / second["memory MB"] - 1
        return {
            "test": "memory and open files",
            "second quarter": second,
            "last quarter": last,
            "memory growth": round(growth, 4),
            "passed": growth <= TOLERANCE and last["minimum open files"] == second["minimum open files"],
        }
