"""Executors run the tasks of a preparation: in this process, in local processes, on a Ray cluster, or as a Slurm array.

An executor only starts workers. Each worker walks all tasks and takes those that no other worker has begun, see
``tasks``, so that the number of workers may change, and workers that end are replaced.
"""

import argparse
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from mmf_flava.data.child_process import exit_with_parent
from mmf_flava.errors import UserError

POLL = 0.5  # seconds between updates of the progress bar
MAX_DEATHS = 3  # workers that are killed after each other, without a finished task in between
MAX_WORKERS = 1024
DIED = (
    "workers were killed one after the other without finishing a task, as happens if memory is short. The finished "
    "tasks are kept. Run the command again with fewer workers, or a smaller --shard if it has this option."
)

Work = Callable[[], None]
Watch = Callable[[], bool]


class WorkersKilledError(UserError):
    """Workers were killed one after the other. Their finished tasks are kept."""


@dataclass(frozen=True)
class Executor:
    """Where the tasks run.

    Args:
        kind: ``local`` or ``ray``.
        workers: number of workers; of ``ray``, 0: one per CPU of the cluster.
    """

    kind: str = "local"
    workers: int = 1

    @property
    def is_here(self) -> bool:
        """Whether the only worker is the calling process."""
        return self == LOCAL

    def check(self) -> None:
        """Raise UserError if Ray is needed and not installed."""
        if self.kind == "ray":
            _import_ray()

    def run(self, work: Work, watch: Watch) -> None:
        """Run ``work`` in each worker until all have ended.

        Args:
            work: picklable function.
            watch: function that is called regularly, and returns whether tasks were finished since the last call.

        Raises:
            WorkersKilledError: workers were killed repeatedly.
            UserError: a worker raised it, or Ray cannot be used.
            RuntimeError: a worker raised another exception.
        """
        run = _run_ray if self.kind == "ray" else _run_local
        run(work, watch, self.workers)
        watch()


LOCAL = Executor()


def parse_executor(text: str) -> Executor:
    """Parse ``local:N``, ``ray`` or ``slurm`` (an argparse ``type``)."""
    kind, _, count = text.partition(":")
    if kind == "local" and count.isdecimal() and 1 <= int(count) <= MAX_WORKERS:
        return Executor(kind, int(count))
    if text == "ray":
        return Executor(kind, 0)
    if text == "slurm":
        if not {"SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"} & os.environ.keys():
            raise argparse.ArgumentTypeError(
                "slurm: this process is no job of Slurm (SLURM_ARRAY_TASK_ID is not set). Submit the command with "
                "sbatch --array, or use local:N"
            )
        count = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        if not (count.isdecimal() and 1 <= int(count) <= MAX_WORKERS):
            raise argparse.ArgumentTypeError(f"slurm: SLURM_CPUS_PER_TASK must be 1 to {MAX_WORKERS}, got {count!r}")
        return Executor("local", int(count))
    raise argparse.ArgumentTypeError(f"must be local:N with N from 1 to {MAX_WORKERS}, ray or slurm, got {text!r}")


def add_executor(
    parser: argparse.ArgumentParser, default: Executor | None = LOCAL, default_help: str = "local:1"
) -> None:
    """Add the option ``--executor``."""
    parser.add_argument(
        "--executor",
        type=parse_executor,
        default=default,
        metavar="EXECUTOR",
        help="local:N for N processes, ray, or slurm in an array job; processes with the same command share the work "
        f"(default: {default_help})",
    )


def _run_local(work: Work, watch: Watch, count: int) -> None:
    """Run ``work`` in processes. A process that is killed is replaced."""
    workers: list[_Worker] = []
    interrupted = threading.Event()
    try:
        with _interrupts_set(interrupted):
            while len(workers) < count:
                workers.append(_Worker(work))
            _watch_local(work, watch, workers, interrupted)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


@contextmanager
def _interrupts_set(event: threading.Event) -> Iterator[None]:
    """Context manager: Ctrl-C sets ``event``. An exception could be raised, and lost, anywhere in multiprocessing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: event.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _watch_local(work: Work, watch: Watch, workers: "list[_Worker]", interrupted: threading.Event) -> None:
    """Replace the workers that are killed, until all have ended."""
    deaths = 0
    while workers:
        if interrupted.is_set():
            raise KeyboardInterrupt
        wait([worker.process.sentinel for worker in workers], POLL)
        deaths = 0 if watch() else deaths
        for worker in [worker for worker in workers if not worker.process.is_alive()]:
            workers.remove(worker)
            if worker.has_ended():
                continue
            deaths += 1
            if deaths > MAX_DEATHS:
                raise WorkersKilledError(f"{deaths} {DIED}")
            workers.append(_Worker(work))


class _Worker:
    """A process that runs ``work``."""

    def __init__(self, work: Work):
        context = multiprocessing.get_context("spawn")
        self._result, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_run_and_send, args=(work, sender), daemon=True)
        # Ctrl-C reaches all processes of a terminal; only this one handles it. The start of the tracker unblocks it.
        resource_tracker.ensure_running()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            sender.close()

    def has_ended(self) -> bool:
        """Return whether the process, which is dead, has completed its work. Raise the exception of the work."""
        try:
            error = self._result.recv()
        except EOFError:
            return False
        finally:
            self._result.close()
        if error is not None:
            raise error
        return True


def _run_and_send(work: Work, sender: Connection) -> None:
    """Run ``work`` in a worker, and send None or the exception."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process would leave behind
    try:
        work()
        sender.send(None)
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        sender.send(error)
    except Exception as error:  # its class may not be picklable
        sender.send(RuntimeError("".join(traceback.format_exception(error))))


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray, which is not installed: pip install 'mmf_flava[ray]'.") from None
    return ray


def _run_ray(work: Work, watch: Watch, count: int) -> None:
    """Run ``work`` on a Ray cluster: the one that Ray's environment variables name, else a new one on this machine."""
    ray = _import_ray()
    is_new = not ray.is_initialized()
    if is_new:
        try:
            ray.init(logging_level="warning", log_to_driver=False)
        except (ValueError, ConnectionError, RuntimeError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UserError(f"Ray cannot start or connect ({reason}). Check RAY_ADDRESS.") from None
    deaths = 0
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(_call)
        count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        running = [remote.remote(work, os.getcwd()) for _ in range(count)]
        while running:
            ended, running = ray.wait(running, timeout=POLL)
            deaths = 0 if watch() else deaths
            for worker in ended:
                try:
                    ray.get(worker)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    deaths += 1
                    if deaths > MAX_DEATHS:
                        raise WorkersKilledError(f"{deaths} {DIED} ({type(error).__name__})") from error
                    running.append(remote.remote(work, os.getcwd()))
    finally:
        if is_new:
            ray.shutdown()


def _call(work: Work, folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)  # of relative paths
    work()
