"""Runs whose processes are forked from one that has imported MMF: an attempt starts in a fraction of a second.

They run the same function as the command ``mmf_run``.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.faults.killed_runs import interrupt
from tests.faults.runs import Run
from tests.processes import SERVER

RANKS = multiprocessing.get_context("fork")
STARTING = 0.5  # seconds from the start of a run to its first update
EXIT_TIMEOUT = 60  # seconds from the death of a process to the exit of the others, as in torchrun


class ForkedRun(Run):
    """A ``Run`` without new interpreters. ``instrument`` and ``stdout`` are not supported."""

    def start(self, *options: str, processes: int = 1, **_: Any) -> Any:
        """Start an attempt; return an object with the interface of ``subprocess.Popen``."""
        words = [*self.options, *options]
        if processes > 1 and not any(word.startswith("training.sharding=") for word in words):
            words.append("training.sharding=ddp")
        environment = {"MMF_CACHE_DIR": str(self.root.parent / "cache"), "OMP_NUM_THREADS": "1"}
        process = SERVER.Process(target=self._launch, args=(words, processes, environment))
        process.start()
        return _Attempt(process)

    def _launch(self, words: list[str], processes: int, environment: dict[str, str]) -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(log, number)
        sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)  # pytest may have replaced the streams
        os.environ.update(environment)
        if processes == 1:
            sys.exit(_run(words))
        launch_ranks(words, processes)


def kill_and_compare(
    root: Path, recipe: Sequence[str], kills: int, updates: int, processes: int, seed: int
) -> tuple[Run, dict[str, Any]]:
    """Do a run twice, once with ``kills`` at random times; return the quiet run and the result of ``interrupt``."""
    options = (f"training.max_updates={updates}", f"checkpoint.background={'true' if seed % 2 else 'false'}")
    quiet, run = (ForkedRun(root, word, *options, recipe=recipe) for word in ("quiet", "killed"))
    quiet.finish(processes=processes)
    return quiet, interrupt(quiet, run, signal.SIGKILL, kills, updates, processes, seed, starting=STARTING)


def launch_ranks(words: Sequence[str], processes: int) -> None:
    """Fork the processes of a run, and exit with 1 if one fails, after ending the others, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [RANKS.Process(target=_run_rank, args=(words, rank)) for rank in range(processes)]
    for rank in ranks:
        rank.start()
    waiting = list(ranks)
    while waiting:
        multiprocessing.connection.wait([rank.sentinel for rank in waiting])
        for rank in [rank for rank in waiting if rank.exitcode is not None]:
            waiting.remove(rank)
            if rank.exitcode != 0:
                for other in waiting:
                    other.terminate()
                for other in waiting:
                    other.join(EXIT_TIMEOUT)
                    other.kill()
                sys.exit(1)


def _run_rank(words: Sequence[str], rank: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    sys.exit(_run(words))


def _run(words: Sequence[str]) -> Any:
    from mmf_cli.run import run

    sys.argv = ["mmf_run", *words]
    return run()


class _Attempt:
    """A forked process with the interface of ``subprocess.Popen``."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("mmf_run", timeout or 0)
        return self.process.exitcode
