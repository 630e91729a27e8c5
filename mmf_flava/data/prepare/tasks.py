"""Tasks of a preparation: numbered pieces of work, whose results are files in a folder that processes share.

A task depends on the input only, so it does not matter which process runs it, or if two do. ``00007.json`` is the
result of task 7 and is written last, by an atomic rename; a task with a result is never run again. There are no locks:
an empty file ``00007.0.claim`` says that a process has begun task 7. Other processes take the next task instead. A
process touches the claim of its task about once per second. If all tasks are claimed, and a claim stays untouched for
``QUIET`` seconds, because its process was killed or is slow, another process claims the task too (``00007.1.claim``).
It gives up the task as soon as the result appears.
"""

import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

QUIET = 5.0  # seconds
TOUCH = 1.0  # seconds between touches of a claim, at least
POLL = 0.2  # seconds between looks at the tasks of other processes

Result = dict[str, Any]
IsDone = Callable[[], bool]


class Abandoned(Exception):
    """Raised by a task whose result another process has written."""


def no_end() -> bool:
    """Return that no process has finished the whole work."""
    return False


@dataclass(frozen=True)
class TaskFolder:
    """The results of the tasks of one input.

    Args:
        folder: folder of the results; it is created by ``walk``.
        input: identifies the input. Results of another input are ignored.
        count: number of tasks; None: the first task whose result has ``last`` is the last one.
        types: what a result has besides ``input`` and ``last``. One that lacks it is damaged.
    """

    folder: Path
    input: str
    count: int | None = None
    types: Mapping[str, type] = field(default_factory=dict)

    def result(self, number: int) -> Result | None:
        """Return the result of a task; None if it is missing, damaged or of another input."""
        try:
            result = read_object(self.folder / f"{number:05d}.json")
        except (OSError, ValueError):
            return None
        types = {"last": bool, **self.types}
        is_valid = all(isinstance(result.get(key), kind) for key, kind in types.items())
        return result if is_valid and result.get("input") == self.input else None

    def forget(self, number: int) -> None:
        """Delete the result and the claims of a task, so that it is run again."""
        for path in (self.folder / f"{number:05d}.json", *self.folder.glob(f"{number:05d}.*.claim")):
            path.unlink(missing_ok=True)

    def walk(
        self,
        run: Callable[[int, IsDone], Result],
        add: Callable[[Result], object] = lambda result: None,
        has_ended: IsDone = no_end,
    ) -> list[Result]:
        """Run the tasks that have no result, together with other processes, until all have one. Return all results.

        Args:
            run: (number, function that returns whether the result exists) -> result. It raises ``Abandoned`` if it
                finds that the result exists. A task after the end has a result with ``last`` too.
            add: function that is called with each result that another process has written.
            has_ended: function that returns whether another process has finished the whole work.

        Raises:
            Abandoned: the whole work is finished.
            FileNotFoundError: the folder was deleted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        claims, results = _Claims(self.folder), dict[int, Result]()
        while self.count != 0:
            before, number = len(results), -1
            for number in itertools.count():
                if number not in results and (result := self.result(number)) is not None:
                    results[number] = result
                    add(result)
                elif number not in results and (result := self._run(number, run, claims, has_ended)) is not None:
                    results[number] = result
                if results.get(number, {}).get("last") or number + 1 == self.count:
                    break
            if all(earlier in results for earlier in range(number + 1)):
                return [results[earlier] for earlier in range(number + 1)]
            if len(results) == before:
                time.sleep(POLL)
        return []

    def _run(
        self, number: int, run: Callable[[int, IsDone], Result], claims: "_Claims", has_ended: IsDone
    ) -> Result | None:
        """Run a task and return its result; None if another process runs it. For the arguments, see ``walk``."""
        if has_ended():
            raise Abandoned
        if (claim := claims.claim(number)) is None:
            return None
        try:
            return self._write(number, run(number, _IsDone(claim, partial(self._is_done, number, has_ended))))
        except Abandoned:
            return None
        except BaseException:
            claim.unlink(missing_ok=True)  # nobody needs to wait for the end of this process
            raise

    def _is_done(self, number: int, has_ended: IsDone) -> bool:
        return has_ended() or self.result(number) is not None

    def _write(self, number: int, result: Result) -> Result:
        result = {"input": self.input, **result}
        atomic.write_json(self.folder / f"{number:05d}.json", result)
        return result


class _IsDone:
    """Returns whether a task is done, and touches the claim of its process."""

    def __init__(self, claim: Path, is_done: IsDone):
        self._claim, self._is_done, self._touched = claim, is_done, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._touched >= TOUCH:
            self._touched = now
            with suppress(FileNotFoundError):  # the work has ended
                os.utime(self._claim)
        return self._is_done()


class _Claims:
    """Claims of tasks for one process, and when it saw the latest change of those of others."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._levels = dict[int, int]()  # claims of a task
        self._seen = dict[int, tuple[tuple[int, int], float]]()  # task -> level and time of its last claim, own time

    def claim(self, number: int) -> Path | None:
        """Claim a task and return the claim's file; None if another process has claimed it, and may be alive."""
        while True:
            level = self._levels.get(number, 0)
            while os.path.lexists(path := self._path(number, level)):
                level += 1
            self._levels[number] = level
            if level and not self._is_quiet(number, level - 1):
                return None
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                return path

    def _path(self, number: int, level: int) -> Path:
        return self._folder / f"{number:05d}.{level}.claim"

    def _is_quiet(self, number: int, level: int) -> bool:
        """Return whether a claim was not touched for ``QUIET`` seconds, or was deleted."""
        try:
            found = level, self._path(number, level).lstat().st_mtime_ns
        except FileNotFoundError:
            return True
        seen, since = self._seen.setdefault(number, (found, time.monotonic()))
        if seen != found:
            self._seen[number] = found, time.monotonic()
            return False
        return time.monotonic() - since >= QUIET
