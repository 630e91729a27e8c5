"""Resumable writing of tar shards, for labelled images and image-text pairs, by any number of processes.

The output folder contains
    00000.tar, ...   the records of the tasks, see below
    manifest.json    counts, reasons for dropped rows, checksums; written last
    .work/           results of the tasks and temporary files; deleted at the end

Task k covers the input rows from k * shard to (k + 1) * shard - 1. Their records are the shard k; there is no shard if
all rows are dropped. The content of a shard and of the manifest depends only on the input, and not on the processes,
which share the tasks as ``tasks`` describes. If preparation was interrupted, the next call runs the tasks without a
result. A preparation without any record is an error, and leaves nothing behind; see ``empty_result``.
"""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare.empty_result import EmptyResultCheck, NoRecordError
from mmf_flava.data.prepare.executors import LOCAL, Executor, WorkersKilledError, parse_executor
from mmf_flava.data.prepare.row_tasks import RowProgress, RowResult, RowTasks, WatchedProgress
from mmf_flava.data.prepare.tasks import Abandoned, TaskFolder
from mmf_flava.errors import UserError, join_first
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

MANIFEST, WORK, INPUT = "manifest.json", ".work", "input.json"
FORMER = "progress.json"  # in the work folder of an earlier version
RESULT_TYPES = {"counts": dict, "dropped": dict, "problems": dict, "messages": dict, "bytes": int}
State = dict[str, Any]


@dataclass(frozen=True)
class ShardPreparation:
    """Preparation of one output folder of tar shards.

    Args:
        name: label of the progress bar.
        input: identifies the input and options; resuming with a different ``input`` raises an error.
        convert: (folder for temporary files, number of the first row) -> results of the rows from that number on. An
            iterator is not used after a later call. Picklable, unless the executor is ``LOCAL``.
        manifest: function that creates the manifest from the final ``input``, ``counts``, ``dropped`` and ``shards``.
        count_names: names of the counts, in addition to ``rows``.
        shard: rows per task, whose records are a shard.
        rows: total number of rows, if known.
        text_files: additional files, name -> content.
        source: the input, for the error if no row gives a record.
        remedy: what to do about this error.
    """

    name: str
    input: Mapping[str, Any]
    convert: Callable[[Path, int], Iterator[RowResult]]
    manifest: Callable[[State], dict[str, Any]]
    count_names: tuple[str, ...]
    shard: int
    rows: int | None = None
    text_files: Mapping[str, str] = field(default_factory=dict)
    source: str = "--src"
    remedy: str = "Check the options of the command."

    def run(self, out: Path, progress: bool = True, executor: Executor = LOCAL) -> dict[str, Any]:
        """Write the shards to ``out``, or resume an interrupted preparation, and return the manifest.

        Other processes that prepare the same data in ``out`` share the work.

        Raises:
            UserError: ``out`` contains data that were prepared from a different ``input``, ``shard`` is less than 1, no
                row gives a record, or a worker was killed repeatedly.
        """
        if self.shard < 1:
            raise UserError(f"--shard is {self.shard}; it must be at least 1.")
        executor.check()
        out.mkdir(parents=True, exist_ok=True)
        if self._is_finished(out):
            _check_shards(out)
        else:
            is_first = self._begin(out)
            self._forget_lost_shards(out)
            try:
                with tqdm(desc=self.name, unit="row", total=self.rows, disable=not progress) as bar:
                    if executor.is_here:
                        self.work(out, RowProgress(bar))
                    else:
                        executor.run(partial(self.work, out), WatchedProgress(bar, self.task_folder(out)).update)
                self._merge(out)
            except WorkersKilledError:
                raise
            except UserError as error:
                # another process that began before this one meets the same error, unless it is one of this process
                if (is_first or isinstance(error, NoRecordError)) and not _has_shards(out / WORK):
                    shutil.rmtree(out / WORK, ignore_errors=True)
                raise
        shutil.rmtree(out / WORK, ignore_errors=True)
        return read_object(out / MANIFEST)

    def work(self, out: Path, progress: RowProgress | None = None) -> None:
        """Run the tasks that no other process has begun, until all have a result or the manifest is written."""
        progress = progress or RowProgress()
        folder, has_ended = self.task_folder(out), (out / MANIFEST).is_file
        try:
            with suppress(Abandoned):
                folder.walk(RowTasks(self, folder, progress).run, progress.add_result, has_ended)
        except FileNotFoundError:
            if has_ended():
                return
            if (out / WORK).is_dir():
                raise
            raise _deleted(out) from None

    def task_folder(self, out: Path) -> TaskFolder:
        digest = hashlib.sha256(json.dumps(self.input, sort_keys=True, default=str).encode()).hexdigest()
        count = None if self.rows is None else max(1, -(-self.rows // self.shard))
        return TaskFolder(out / WORK, digest, count, RESULT_TYPES)

    def _is_finished(self, out: Path) -> bool:
        """Return whether ``out`` has the manifest of this input. Raise UserError if it has that of another one."""
        if (out / WORK / FORMER).exists():
            raise UserError(
                f"{out} contains a preparation that an earlier version of mmf_flava has not finished. Delete the "
                "folder and prepare the data again."
            )
        finished = _load(out / MANIFEST)
        if finished is not None and not finished["shards"]:  # of an earlier version
            (out / MANIFEST).unlink()
            finished = None
        if finished is not None:
            self._check_input(out, finished)
        return finished is not None

    def _begin(self, out: Path) -> bool:
        """Note that the preparation has begun, and return whether this process is the first to do so.

        Raises:
            UserError: another input is being prepared in ``out``, or it has shards of others.
        """
        work = out / WORK
        if not work.is_dir() and any(out.glob("*.tar")):
            raise UserError(f"{out} contains tar files that this command has not written. Choose another --out.")
        work.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", prefix=INPUT, dir=work) as file:
            json.dump({"input": self.input}, file)
            file.flush()
            try:
                os.link(file.name, work / INPUT)  # fails if the file exists, so that one of several processes is first
                return True
            except FileExistsError:
                pass
            except OSError:  # the file system has no links
                if not (work / INPUT).exists():
                    atomic.write_json(work / INPUT, {"input": self.input})
                    return True
        begun = _load(work / INPUT, ("input",))
        if begun is None:
            raise _deleted(out)
        self._check_input(out, begun)
        return False

    def _check_input(self, out: Path, state: Mapping[str, Any]) -> None:
        if state["input"] != self.input:
            raise UserError(
                f"{out} contains data that were prepared from a different input or with different options, or that "
                "another process prepares. Choose another --out, or delete the folder."
            )

    def _forget_lost_shards(self, out: Path) -> None:
        """Delete the results of tasks whose shards were deleted or damaged since, so that they are run again."""
        folder = self.task_folder(out)
        for path in (out / WORK).glob("[0-9]*.json"):
            result = folder.result(int(path.stem)) if path.stem.isdecimal() else None
            if result is not None and result["shard"]:
                shard = out / result["shard"]["name"]
                if not shard.is_file() or shard.stat().st_size != result["bytes"]:
                    folder.forget(int(path.stem))

    def _merge(self, out: Path) -> None:
        """Write the manifest from the results of all tasks, unless another process has written it."""
        folder, results = self.task_folder(out), []
        for number in itertools.count():
            result = folder.result(number)
            if result is None:
                if (out / MANIFEST).is_file():
                    return
                raise _deleted(out)
            results.append(result)
            if result["last"]:
                break
        counts, dropped = Counter(dict.fromkeys(("rows", *self.count_names), 0)), Counter[str]()
        for result in results:
            counts.update(result["counts"])
            dropped.update(result["dropped"])
        shards = [result["shard"] for result in results if result["shard"]]
        if not shards:
            check = EmptyResultCheck(self.source, self.remedy)
            for result in results:
                for reason, count in result["dropped"].items():
                    check.add_dropped(reason, result["problems"].get(reason, ""), count)
            check.finish()
        state = {
            "input": self.input,
            "counts": dict(counts),
            "dropped": dict(sorted(dropped.items())),
            "shards": shards,
        }
        for name, text in self.text_files.items():
            atomic.write_text(out / name, text)
        atomic.write_json(out / MANIFEST, self.manifest(state))


def add_options(parser: ArgumentParser, shard: int) -> None:
    """Add the common command-line options; ``shard`` is the default number of rows per shard."""
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="DIR", help="output folder; an interrupted run is resumed"
    )
    parser.add_argument(
        "--shard",
        type=integer(1),
        default=shard,
        help="rows per task, whose records are a shard (default: %(default)s)",
    )
    parser.add_argument(
        "--executor",
        type=parse_executor,
        default=LOCAL,
        metavar="EXECUTOR",
        help="local:N for N processes, ray, or slurm in an array job; processes with the same command share the work "
        "(default: local:1)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def describe_dropped(manifest: Mapping[str, Any]) -> str:
    """Format the counts of dropped rows by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items()) or "nothing"


def _check_shards(out: Path) -> None:
    """Raise UserError if a shard of a finished preparation is missing or empty."""
    names = [shard["name"] for shard in read_object(out / MANIFEST)["shards"]]
    if lost := [name for name in names if not (out / name).is_file() or not (out / name).stat().st_size]:
        raise UserError(
            f"{out} is finished, but shards are missing or empty: {join_first(lost)}. Restore them, or delete the "
            "folder and prepare the data again."
        )


def _deleted(out: Path) -> UserError:
    return UserError(
        f"{out / WORK} was deleted during the preparation, for example by another process that ended with an error. "
        "Run the command again."
    )


def _load(path: Path, keys: Sequence[str] = ("input", "counts", "dropped", "shards")) -> dict[str, Any] | None:
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


def _has_shards(work: Path) -> bool:
    """Return whether a task of any input has written a shard."""
    for path in work.glob("*.json"):
        with suppress(OSError, ValueError):
            if read_object(path).get("shard"):
                return True
    return False
