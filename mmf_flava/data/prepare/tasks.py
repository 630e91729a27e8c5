"""Tasks of a preparation: numbered pieces of work, whose results are files in a folder that processes share.

A task depends on the input only, so it does not matter which process runs it, or if two do. ``00007.json`` is the
result of task 7 and is written last, by an atomic rename; a task with a result is never run again. There are no locks:
an empty file ``00007.0.claim`` says that a process has begun task 7. Other processes take the next task instead. When
all tasks are claimed, a process claims those without a result a second time (``00007.1.claim``): their process may have
been killed. It gives up such a task as soon as the result appears.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

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
        """Delete the result of a task, so that it is run again."""
        (self.folder / f"{number:05d}.json").unlink(missing_ok=True)

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
        results: dict[int, Result] = {}
        for level in itertools.count() if self.count != 0 else ():
            for number in itertools.count():
                if number not in results and (result := self.result(number)) is not None:
                    results[number] = result
                    add(result)
                elif number not in results and self._claim(number, level, has_ended):
                    with suppress(Abandoned):
                        result = run(number, partial(self._is_done, number, has_ended))
                        results[number] = self._write(number, result)
                if results.get(number, {}).get("last") or number + 1 == self.count:
                    break
            if all(earlier in results for earlier in range(number + 1)):
                return [results[earlier] for earlier in range(number + 1)]
        return []

    def _claim(self, number: int, level: int, has_ended: IsDone) -> bool:
        """Return whether this process is the first to claim a task at a level."""
        if has_ended():
            raise Abandoned
        try:
            os.close(os.open(self.folder / f"{number:05d}.{level}.claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _is_done(self, number: int, has_ended: IsDone) -> bool:
        return has_ended() or self.result(number) is not None

    def _write(self, number: int, result: Result) -> Result:
        result = {"input": self.input, **result}
        atomic.write_json(self.folder / f"{number:05d}.json", result)
        return result
