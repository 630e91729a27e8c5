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

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare.empty_result import EmptyResultCheck
from mmf_flava.data.prepare.executors import LOCAL, Executor, add_executor
from mmf_flava.data.prepare.output_folder import OutputFolder
from mmf_flava.data.prepare.row_tasks import RowProgress, RowResult, RowTasks
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

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
        folder = self.output_folder(out)
        if folder.is_finished():
            folder.check_shards()
            folder.delete()
            return read_object(folder.end)
        with folder.open():
            with tqdm(desc=self.name, unit="row", total=self.rows, disable=not progress) as bar:
                folder.run(partial(self.work, out), executor, bar)
            self._merge(folder)
        return read_object(folder.end)

    def work(self, out: Path, progress: RowProgress | None = None) -> None:
        """Run the tasks that no other process has begun, until all have a result or the manifest is written."""
        progress, folder = progress or RowProgress(), self.output_folder(out)
        folder.walk(folder.tasks, RowTasks(self, folder.tasks, progress).run, progress.add_result)

    def output_folder(self, out: Path) -> OutputFolder:
        count = None if self.rows is None else max(1, -(-self.rows // self.shard))
        return OutputFolder(out, self.input, count)

    def _merge(self, folder: OutputFolder) -> None:
        """Write the manifest from the results of all tasks, unless another process has written it."""
        results = folder.results()
        if folder.has_end():
            return
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
            atomic.write_text(folder.out / name, text)
        atomic.write_json(folder.end, self.manifest(state))


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
    add_executor(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def describe_dropped(manifest: Mapping[str, Any]) -> str:
    """Format the counts of dropped rows by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items()) or "nothing"
