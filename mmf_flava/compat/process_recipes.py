"""Comparison of the recipes of all processes, before the process group is created.

The processes meet in torch's key-value store, which torchrun or rank 0 hosts. A process whose recipe differs from that
of rank 0, and a process that fails before it has met the others, writes a problem to the store, and all processes end
with this problem. The process group is not used for this, because processes with different devices cannot create one.
"""

import contextlib
import itertools
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmf_flava.compat import flava_run
from mmf_flava.compat.run_device import uses_cuda
from mmf_flava.compat.selection import VARIABLE
from mmf_flava.config.recipe_differences import Value, comparable_values, describe_differences, find_differences
from mmf_flava.errors import UserError, hide_secrets, join_first

TIMEOUT = 600.0  # seconds that a process waits for the others to start
# seconds that a process with a problem stays, so that the others can read it: torchrun ends all processes when one ends
FAREWELL = 120.0
SAME_VERSIONS = ("mmf", "mmf_flava", "torch")
OTHER_VERSIONS = ("numpy", "pillow", "timm", "tokenizers", "torchvision", "transformers")
AGREED = "agreed"
SCHEMES = ("env", "tcp", "file")
# the points at which the processes of a run meet
POINTS = ("recipe", "trainer")

_meetings = itertools.count()
_current: "Meeting | None" = None


class Meeting:
    """A process of a run at the points at which it meets the other processes, in the order of ``POINTS``.

    Args:
        store: a key-value store of torch that all processes of the run share.
        timeout: maximum number of seconds to wait for the other processes.
        farewell: maximum number of seconds to wait, in case of a problem, until all processes have read it.
    """

    def __init__(
        self, store: Any, rank: int, world_size: int, timeout: float = TIMEOUT, farewell: float = FAREWELL
    ) -> None:
        self.store, self.rank, self.world_size, self.timeout, self.farewell = store, rank, world_size, timeout, farewell
        self.name = f"rank {rank} on {socket.gethostname()} (process {os.getpid()})"
        self._points = list(POINTS)

    def agree(self, offer: str = "", find_problem: Callable[[str], str] = lambda offer: "") -> None:
        """Meet the other processes at the next point.

        Args:
            offer: what rank 0 offers.
            find_problem: returns the problem with rank 0's offer, or an empty string. Called by the other ranks.

        Raises:
            UserError: the first problem of any process, the same on all processes.
        """
        point = self._points[0]
        try:
            self.store.set(f"{point}/here/{self.rank}", self.name)
            if self.rank == 0:
                self.store.compare_set(f"{point}/offer", "", offer or "-")
                problem = ""
            else:
                offer = self._get(f"{point}/offer")
                problem = find_problem(offer) if offer != "-" else ""
            if problem:
                self._write_result(problem)
            elif self.store.add(f"{point}/{AGREED}", 1) == self.world_size:
                self._write_result(AGREED)
            result = self._get(f"{point}/result")
        except RuntimeError as error:  # torch's DistError: time is up, or the store's process has ended
            result = self._describe(error)
        if result != AGREED:
            self._leave()
            raise UserError(result)
        del self._points[0]

    @property
    def is_over(self) -> bool:
        """Whether this process has met the others at all points, or a problem has ended the meeting."""
        return not self._points

    def fail(self, message: str) -> None:
        """Report that this process ends with an error, unless it has met the others at all points."""
        if self.is_over:
            return
        with contextlib.suppress(RuntimeError):
            self.store.compare_set(f"{self._points[0]}/offer", "", "-")
            self._write_result(f"{self.name} failed: {message}")
            self._leave()

    def _get(self, key: str) -> str:
        self.store.wait([key], timedelta(seconds=self.timeout))
        return self.store.get(key).decode()

    def _write_result(self, result: str) -> None:
        self.store.compare_set(f"{self._points[0]}/result", "", result)  # the first result counts

    def _describe(self, error: RuntimeError) -> str:
        """Return the problem if the other processes cannot be met."""
        point = self._points[0]
        try:
            missing = [f"rank {r}" for r in range(self.world_size) if not self.store.check([f"{point}/here/{r}"])]
            self._write_result(
                f"{join_first(missing)} did not start within {self.timeout:.0f} s of {self.name}. Read the output of "
                "that process for the reason."
            )
            return self._get(f"{point}/result")
        except RuntimeError:
            reason = str(error).partition("\n")[0].rstrip(".")
            return f"{self.name} lost the connection to rank 0: {reason}. Read the output of rank 0 for the reason."

    def _leave(self) -> None:
        """Wait until all processes have read the result. Afterwards, SIGTERM of torchrun does not end this process."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline, key = time.monotonic() + self.farewell, f"{self._points[0]}/read"
        with contextlib.suppress(RuntimeError):
            read = self.store.add(key, 1)
            while read < self.world_size and time.monotonic() < deadline:
                time.sleep(0.1)
                read = self.store.add(key, 0)
        self.end()

    def end(self) -> None:
        """Meet the other processes at no further point."""
        self._points.clear()


def compare_recipes(config: Any) -> None:
    """Compare the recipe, the device and the versions of this process with those of rank 0.

    Must be called by all processes, before they create the process group. Does nothing for another ``init_method`` than
    env, tcp or file.

    Args:
        config: the complete config. ``config.distributed`` has the address and the rank of this process.

    Raises:
        UserError: a process has another recipe or has failed. The message is the same on all processes.
    """
    global _current
    group = config.distributed
    if urlsplit(str(group.init_method)).scheme not in SCHEMES:
        return
    meeting = _current = join(group.init_method, group.rank, group.world_size)
    own = {"name": meeting.name, **_describe_process(config)}

    def find_problem(offer: str) -> str:
        first = json.loads(offer)
        values = {key: Value(*value) for key, value in first["values"].items()}
        if keys := find_differences(values, own["values"]):
            return describe_differences(keys, values, own["values"], first["name"], own["name"])
        return _compare_versions(first, own)

    meeting.agree(json.dumps(own), find_problem)
    if config.training.trainer not in flava_run.TRAINERS:  # does not call meet_before_training
        meeting.end()


def meet_before_training() -> None:
    """Wait until the trainers of all processes exist. Does nothing if ``compare_recipes`` was not called.

    Raises:
        UserError: a process has failed.
    """
    if _current is not None and not _current.is_over:
        _current.agree()


def report_failure(error: BaseException) -> None:
    """Report an error of this process to the processes that wait for it in ``agree``."""
    global _current
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return
    size = os.environ.get("WORLD_SIZE", "1")
    if _current is None:
        if not (size.isdecimal() and int(size) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)):
            return
        with contextlib.suppress(RuntimeError, ValueError):
            _current = join("env://", int(os.environ["RANK"]), int(size), FAREWELL)
    if _current is not None:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        _current.fail(hide_secrets(text.split("\n")[0]))


def join(method: str, rank: int, world_size: int, timeout: float = TIMEOUT) -> Meeting:
    """Connect this process to the store at torch's ``init_method``; on rank 0, host the store unless torchrun does."""
    from torch.distributed import FileStore, PrefixStore, TCPStore

    address, number = urlsplit(method), next(_meetings)
    if address.scheme == "file":
        return Meeting(PrefixStore(str(number), FileStore(f"{address.path}.recipes", world_size)), rank, world_size)
    host, port, hosts = str(address.hostname), address.port or 0, rank == 0
    if address.scheme == "env":
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        hosts = hosts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = timedelta(seconds=timeout)
    try:
        store = TCPStore(host, port, is_master=hosts, timeout=limit, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"MASTER_ADDR, MASTER_PORT: rank {rank} on {socket.gethostname()} cannot {'use' if hosts else 'reach'} "
            f"{host}:{port}: {reason}. Check the address, and the output of rank 0."
        ) from None
    return Meeting(PrefixStore(f"mmf_flava/{number}", store), rank, world_size, timeout)


def _describe_process(config: Any) -> dict[str, Any]:
    """Return the values and versions that all processes must share."""
    written = OmegaConf.to_container(config, resolve=False)
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        resolved = written
    values = comparable_values(written, resolved)
    kind, patches = "cuda" if uses_cuda(config) else "cpu", os.environ.get(VARIABLE, "")
    values["training.device"] = Value(kind, kind)
    values[VARIABLE] = Value(patches, patches or "no value")
    versions = {name: _version(name) for name in (*SAME_VERSIONS, *OTHER_VERSIONS)}
    return {"values": values, "versions": {**versions, "python": platform.python_version()}}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def _compare_versions(first: dict[str, Any], own: dict[str, Any]) -> str:
    """Return the problem with the version of a package, or warn if the package may have different versions."""
    for package, other in own["versions"].items():
        if other == (expected := first["versions"].get(package)):
            continue
        text = f"{package}: {first['name']} has version {expected}, {own['name']} has version {other}"
        if package in SAME_VERSIONS:
            return f"{text}. Install the same version for all processes."
        print(f"mmf_flava: Warning: {text}.", file=sys.stderr, flush=True)
    return ""
