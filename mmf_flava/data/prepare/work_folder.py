"""The folder in which processes share the tasks of one preparation, until its result exists."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.prepare.empty_result import NoRecordError
from mmf_flava.data.prepare.executors import Executor, WorkersKilledError
from mmf_flava.data.prepare.row_tasks import RowProgress, WatchedProgress
from mmf_flava.data.prepare.tasks import Abandoned, IsDone, Result, TaskFolder
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

INPUT = "input.json"


class WorkFolder:
    """The folder of the tasks of a preparation.

    Args:
        out: the output, for messages.
        work: the folder.
        end: file that is written last. Once it exists, nothing is left to do.
        input: identifies the input and the options.
        count: number of tasks; None: see ``TaskFolder``.
        types: entries of a task's result, see ``TaskFolder``.
    """

    def __init__(
        self, out: Path, work: Path, end: Path, input: Mapping[str, Any], count: int | None, types: Mapping[str, type]
    ):
        self.out, self.work, self.end, self.input = out, work, end, input
        digest = hashlib.sha256(json.dumps(input, sort_keys=True, default=str).encode()).hexdigest()
        self.tasks = TaskFolder(work, digest, count, types)

    def has_end(self) -> bool:
        return self.end.is_file()

    def has_results(self) -> bool:
        """Return whether a task of any input has a result that is worth keeping."""
        return any(path.stem.isdecimal() for path in self.work.glob("*.json"))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Context manager around the preparation: begin it, and delete the folder at the end.

        After an error, finished tasks are kept.
        """
        is_first = False
        with self.deletion():
            is_first = self.begin()
        try:
            yield
        except WorkersKilledError:
            raise
        except UserError as error:
            # without a record, other processes fail too; another error may be of this process only
            if (is_first or isinstance(error, NoRecordError)) and not self.has_results():
                self.delete()
            raise
        self.delete()

    def begin(self) -> bool:
        """Note that the preparation has begun, and return whether this process is the first to do so.

        Raises:
            UserError: another input is being prepared.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        is_first = self._write_input()
        if not is_first:
            begun = load_state(self.work / INPUT, ("input",))
            if begun is None:
                raise self.deleted()
            self.check_input(begun)
        for path in self.work.glob("[0-9]*.json"):
            result = self.tasks.result(int(path.stem)) if path.stem.isdecimal() else None
            if result is not None and not self.has_files(int(path.stem), result):
                self.tasks.forget(int(path.stem))  # so that it is run again
        return is_first

    def has_files(self, number: int, result: Result) -> bool:
        """Return whether the files of a finished task exist; they may have been deleted or damaged since."""
        return True

    def run(self, work: Callable[..., None], executor: Executor, bar: tqdm) -> None:
        """Run the tasks by an executor.

        Args:
            work: picklable function that walks the tasks; its argument is the progress, if this process shows it.
            bar: progress bar of rows.
        """
        if executor.is_here:
            work(RowProgress(bar))
        else:
            executor.run(work, WatchedProgress(bar, self.tasks).update)

    def walk(
        self,
        tasks: TaskFolder,
        run: Callable[[int, IsDone], Result],
        add: Callable[[Result], object] = lambda result: None,
    ) -> list[Result]:
        """Run the tasks that no other process has begun, until all have a result, and return all results.

        The list is empty if the end is written meanwhile.

        Raises:
            UserError: the folder was deleted.
        """
        with self.deletion(), suppress(Abandoned):
            return tasks.walk(run, add, self.has_end)
        return []

    @contextmanager
    def deletion(self) -> Iterator[None]:
        """Context manager around the use of the folder, which another process deletes after it has written the end.

        Raises:
            UserError: the folder was deleted before the end was written.
        """
        try:
            yield
        except FileNotFoundError:
            if not self.has_end():
                if self.work.is_dir():
                    raise
                raise self.deleted() from None

    def results(self) -> list[Result]:
        """Return the results of all tasks, in order; an empty list if the end is written meanwhile.

        Raises:
            UserError: a result was deleted.
        """
        results: list[Result] = []
        while (result := self.tasks.result(len(results))) is not None:
            results.append(result)
            if result["last"]:
                return results
        if self.has_end():
            return []
        raise self.deleted()

    def check_input(self, state: Mapping[str, Any]) -> None:
        """Raise ``other_input`` if ``state`` has another input."""
        if state["input"] != self.input:
            raise self.other_input()

    def other_input(self) -> UserError:
        """Return the error for the data of another input."""
        return UserError(
            f"{self.out} contains data that were prepared from a different input or with different options, or "
            "that another process prepares. Choose another --out, or delete the folder."
        )

    def delete(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def deleted(self) -> UserError:
        """Return the error for a work folder that was deleted."""
        return UserError(
            f"{self.work} was deleted during the preparation, for example by another process that ended with an error. "
            "Run the command again."
        )

    def _write_input(self) -> bool:
        """Write the input, unless another process has written one; return whether it did."""
        with tempfile.NamedTemporaryFile("w", prefix=INPUT, dir=self.work) as file:
            json.dump({"input": self.input}, file)
            file.flush()
            try:
                os.link(file.name, self.work / INPUT)  # fails if the file exists, so that only one process is first
                return True
            except FileExistsError:
                return False
            except OSError:  # the file system has no links
                if (self.work / INPUT).exists():
                    return False
                atomic.write_json(self.work / INPUT, {"input": self.input})
                return True


def file_size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is missing."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def load_state(path: Path, keys: Sequence[str]) -> dict[str, Any] | None:
    """Read the objects ``keys`` of a JSON file; return None if it is missing.

    Raises:
        UserError: the file is damaged.
    """
    try:
        state = read_object(path)
        for key in keys:
            if not isinstance(state.get(key), list if key == "shards" else dict):
                raise ValueError(f"its {key} are missing or damaged")
        return state
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete the folder and prepare the data again.") from None
