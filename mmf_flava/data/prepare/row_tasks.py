"""The tasks of a preparation of tar shards: each converts a range of rows and writes their records to a shard."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

from tqdm import tqdm

from mmf_flava.data.prepare.empty_result import EmptyResultCheck
from mmf_flava.data.prepare.rows import BadRow
from mmf_flava.data.prepare.tasks import Abandoned, IsDone, Result, TaskFolder
from mmf_flava.data.shard_index import index_path
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.files import atomic

ROWS_PER_CHECK = 256  # rows between checks whether another process has finished the task


class RowResult(NamedTuple):
    """Result of one input row: the fields of a record and counts to add, or the reason why the row is dropped.

    Attributes:
        bad: the error, if the row is bad.
        unmatched: what was looked for and not found, or what is wrong, if this is why the row is dropped. Empty for
            rows that a rule leaves out.
        key: key of the record; empty: the number of the row.
    """

    fields: dict[str, bytes] | None = None
    counts: Mapping[str, int] = {}
    dropped: str = ""
    bad: BadRow | None = None
    unmatched: str = ""
    key: str = ""


class RowSource(Protocol):
    """What the tasks need of a ``ShardPreparation``."""

    @property
    def name(self) -> str: ...
    @property
    def convert(self) -> Callable[[Path, int], Iterator[RowResult]]: ...
    @property
    def count_names(self) -> tuple[str, ...]: ...
    @property
    def shard(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def remedy(self) -> str: ...


class RowProgress:
    """The progress of the tasks of this process.

    Args:
        bar: progress bar; None: another process shows the progress.
    """

    def __init__(self, bar: tqdm | None = None):
        self.bar = bar
        self._written: set[str] = set()

    def add_row(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def add_result(self, result: Result) -> None:
        """Count the rows of a task that another process has finished, and has written the messages of."""
        self._written |= result["messages"].keys()
        if self.bar is not None:
            self.bar.update(result["counts"]["rows"])

    def write(self, subject: str, message: str) -> None:
        """Write a message, once per subject."""
        if self.bar is not None and subject not in self._written:
            self.bar.write(message)
        self._written.add(subject)


class WatchedProgress:
    """The progress of workers, from the results of their tasks."""

    def __init__(self, bar: tqdm, folder: TaskFolder):
        self.bar, self.folder = bar, folder
        self._progress = RowProgress(bar)
        self._numbers: set[int] = set()
        self._indexed = 0
        self._read()  # their messages have been written

    def update(self) -> bool:
        """Update the bar, write new messages, and return whether tasks were finished since the last call."""
        results = self._read()
        indexed = 0 if self._numbers else len(list(self.folder.folder.glob("*/*.json")))
        has_indexed, self._indexed = indexed > self._indexed, indexed
        self.bar.set_postfix_str(f"indexing the images, {indexed} tasks" if indexed else "", refresh=False)
        for subject, message in (item for result in results for item in result["messages"].items()):
            self._progress.write(subject, message)
        return bool(results) or has_indexed

    def _read(self) -> list[Result]:
        names = os.listdir(self.folder.folder) if self.folder.folder.is_dir() else []
        numbers = sorted({int(name[:-5]) for name in names if name[:-5].isdecimal() and name.endswith(".json")})
        found = [(number, self.folder.result(number)) for number in numbers if number not in self._numbers]
        results = [result for _, result in found if result is not None]
        self._numbers |= {number for number, result in found if result is not None}
        for result in results:
            self.bar.update(result["counts"]["rows"])
        return results


class RowTasks:
    """Runs the tasks of one process. The rows stay open from a task to the next one.

    A result has ``counts``, ``dropped`` (reason -> count), ``problems`` (reason -> first problem), ``messages``
    (subject -> first message), ``shard`` (name, records, sha256; None without records), its ``bytes`` and ``last``.

    Args:
        folder: the work folder in the output folder.
    """

    def __init__(self, source: RowSource, folder: TaskFolder, progress: RowProgress):
        self.source, self.folder, self.progress = source, folder, progress
        self._errors = UnexpectedErrors(source.name, self._warn)
        self._check = EmptyResultCheck(source.source, source.remedy)
        self._rows: Iterator[RowResult] = iter(())
        self._next = -1  # row after the last one that was read
        self._messages: dict[str, str] = {}

    def run(self, number: int, is_done: IsDone) -> Result:
        """Write the shard of a task, and return the result of the task.

        Raises:
            Abandoned: another process has finished the task.
            UserError: none of the first 1,000 rows gives a record.
            RuntimeError: many rows in a row fail with an unexpected error.
        """
        first, names = number * self.source.shard, ("rows", *self.source.count_names)
        if first != self._next:
            self._rows = self.source.convert(self.folder.folder, first)
            self._check.has_record = number > 0 or self._check.has_record  # the first rows decide
        self._next, self._messages = -1, {}
        result: Result = {"counts": dict.fromkeys(names, 0), "dropped": {}, "problems": {}}
        records = self._records(first, result, is_done)
        shard, size = None, 0
        if (record := next(records, None)) is not None:
            shard, size = self._write(f"{number:05d}.tar", chain([record], records))
        rows = result["counts"]["rows"]
        self._next = first + rows
        is_last = rows < self.source.shard or number + 1 == self.folder.count
        dropped = dict(sorted(result["dropped"].items()))
        result |= {"dropped": dropped, "messages": self._messages}
        return {**result, "shard": shard, "bytes": size, "last": is_last}

    def _write(self, name: str, records: Iterator[tuple[str, dict[str, bytes]]]) -> tuple[dict[str, str | int], int]:
        """Write a shard and its index in the work folder, and move them to the output folder. Also return its size."""
        out = self.folder.folder.parent
        # two processes may run the same task
        with TemporaryDirectory(prefix="shard", dir=self.folder.folder, ignore_cleanup_errors=True) as temporary:
            path = Path(temporary, name)
            with ShardWriter(path) as shard:
                for key, fields in records:
                    shard.write(key, fields)
            size = path.stat().st_size
            for written in (index_path(path), path):
                if written.exists():  # the index may be missing, see write_index
                    os.replace(written, out / written.name)
        atomic.fsync(out)
        return {"name": name, "records": shard.count, "sha256": shard.sha256}, size

    def _records(self, first: int, result: Result, is_done: IsDone) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield (key, fields) of the records of a task. ``result`` counts a row before its record is yielded."""
        counts = result["counts"]
        for number, row in enumerate(islice(self._rows, self.source.shard), start=first):
            if number % ROWS_PER_CHECK == 0 and is_done():
                raise Abandoned
            self.progress.add_row()
            counts["rows"] += 1
            if row.fields is None:
                self._drop(number, row, result)
                continue
            for name, count in row.counts.items():
                counts[name] += count
            self._errors.add_good()
            self._check.add_record()
            yield row.key or f"{number:09d}", row.fields

    def _drop(self, number: int, row: RowResult, result: Result) -> None:
        reason, problem = str(row.dropped), row.unmatched
        if row.bad is not None:
            reason, problem = row.bad.reason, row.bad.message
            self._warn(f"row {number} is dropped: {problem} (logged once per reason)", reason)
            self._errors.add_bad(row.bad.failure)
        for name, count in row.counts.items():
            result["counts"][name] += count
        result["dropped"][reason] = result["dropped"].get(reason, 0) + 1
        result["problems"].setdefault(reason, problem)
        self._check.add_dropped(reason, problem)

    def _warn(self, message: str, subject: str = "") -> None:
        self.progress.write(subject or message, message)
        self._messages.setdefault(subject or message, message)
