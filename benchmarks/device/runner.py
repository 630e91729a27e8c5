"""Runs each part in its own process with a time limit, and collects the results."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from device.parts import Part

MIN_SECONDS = 25  # a part is skipped if less of the budget is left
CPU_FACTOR = 20  # a part's time limit on a CPU, relative to a GPU
FAILED = ("failed", "timeout")


@dataclass(frozen=True)
class Options:
    """The options of the check: see ``Context``. budget: seconds for all parts together."""

    device: str
    tiny: bool
    out: Path
    work: Path
    budget: float


class Runner:
    """Runs parts. ``results`` has every result in the order of arrival, with one of name ``part`` for each part.

    On a GPU, consecutive concurrent parts run at the same time. A part that fails, or is stopped at its time limit,
    does not affect the others. Results are printed and appended to ``results.jsonl`` at once.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.start = options, time.monotonic()
        self.results: list[dict[str, Any]] = []
        self.file = options.out / "results.jsonl"
        self.file.write_text("")
        self.logs = options.out / "logs"
        self.logs.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []

    @property
    def seconds_left(self) -> float:
        """The rest of the budget."""
        return self.options.budget - (time.monotonic() - self.start)

    def run(self, parts: Sequence[Part]) -> bool:
        """Run the parts and return whether none of them failed; skipped parts have not failed."""
        try:
            for concurrent, group in groupby(parts, lambda part: part.concurrent and self.options.device == "cuda"):
                if not concurrent:
                    for part in group:
                        self.run_part(part)
                    continue
                threads = [threading.Thread(target=self.run_part, args=(part,), daemon=True) for part in group]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            for process in self._processes:
                _kill_group(process)
        return not any(result["status"] in FAILED for result in self.part_results())

    def part_results(self) -> list[dict[str, Any]]:
        """Return the result of each part as a whole."""
        return [result for result in self.results if result["name"] == "part"]

    def run_part(self, part: Part) -> None:
        """Run one part, and record its results and its status: passed, failed, timeout or skipped."""
        left = self.seconds_left
        if left < MIN_SECONDS:
            self._record(part, status="skipped", skipped=f"{left:.0f} s of the budget are left")
            return
        limit = min(part.seconds * (1 if self.options.device == "cuda" else CPU_FACTOR), left)
        self._log(f"{part.name}: started, at most {limit:.0f} s")
        log, start, timed_out = self.logs / f"{part.name}.log", time.monotonic(), threading.Event()
        with open(log, "w") as stderr:
            # a session of its own, so that all of its processes can be killed together
            process = subprocess.Popen(
                self._command(part), stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
            )
        self._processes.append(process)

        def stop() -> None:
            timed_out.set()
            _kill_group(process)

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self._read_line(part, line, log)
            code = process.wait()
        finally:
            timer.cancel()
            _kill_group(process)
            self._processes.remove(process)
        values: dict[str, Any] = {"status": "passed" if code == 0 else "failed", "code": code}
        if timed_out.is_set() and limit == left:
            values |= {"status": "skipped", "skipped": f"stopped after {limit:.0f} s, at the end of the budget"}
        elif timed_out.is_set():
            values |= {"status": "timeout", "error": f"stopped at its limit of {limit:.0f} s"}
        elif code:
            values["error"] = self._explain(part, code, log)
        self._record(part, **values, seconds=round(time.monotonic() - start, 1))
        self._log(f"{part.name}: {values['status']} in {time.monotonic() - start:.0f} s")

    def _command(self, part: Part) -> list[str]:
        options = self.options
        command = [sys.executable, str(Path(__file__).parent), "--run", part.name, "--module", part.module]
        command += ["--device", options.device, "--out", str(options.out), "--work", str(options.work)]
        return command + ["--tiny"] * options.tiny

    def _read_line(self, part: Part, line: str, log: Path) -> None:
        """Record a line if it is a result of the part; append all other output to its log."""
        try:
            result = json.loads(line) if line.startswith("{") else None
        except ValueError:
            result = None
        if isinstance(result, dict) and result.get("part") == part.name and "name" in result:
            self._add(result)
        else:
            with open(log, "a") as file:
                file.write(line)

    def _explain(self, part: Part, code: int, log: Path) -> str:
        """Return why a part failed: its failed results, or the last line of its log."""
        failed = [r["name"] for r in self.results if r["part"] == part.name and "error" in r]
        if failed:
            return f"failed results: {'; '.join(failed)}"
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f"exit code {code}: {lines[-1][-300:]}"

    def _record(self, part: Part, **values: Any) -> None:
        self._add({"part": part.name, "name": "part", **values})

    def _add(self, result: dict[str, Any]) -> None:
        with self._lock:
            self.results.append(result)
            line = json.dumps(result)
            print(line, flush=True)
            with open(self.file, "a") as file:
                file.write(line + "\n")

    def _log(self, message: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {message}", file=sys.stderr, flush=True)


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a part and all processes that it has started, also after the part itself has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
