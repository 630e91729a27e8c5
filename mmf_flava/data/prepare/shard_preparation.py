"""Resumable writing of tar shards, for labelled images and image-text pairs.

The output folder contains
    00000.tar, ...   the records, in the order of the input rows
    manifest.json    counts, reasons for dropped rows, checksums; written last
    .work/           progress and temporary files; deleted at the end

If preparation was interrupted, the next call resumes after the last complete shard. The content of a shard depends only
on the input. A preparation without any record is an error, and leaves nothing behind; see ``empty_result``.
"""

import hashlib
import shutil
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare.empty_result import EmptyResultCheck
from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.data.prepare.rows import BadRow
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

State = dict[str, Any]


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


@dataclass(frozen=True)
class ShardPreparation:
    """Preparation of one output folder of tar shards.

    Args:
        name: label of the progress bar.
        input: identifies the input and options; resuming with a different ``input`` raises an error.
        convert: (folder for temporary files, number of the first row) -> results of the rows from that number on.
        manifest: function that creates the manifest from the final ``input``, ``counts``, ``dropped`` and ``shards``.
        count_names: names of the counts, in addition to ``rows``.
        shard: records per shard.
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

    def run(self, out: Path, progress: bool = True) -> dict[str, Any]:
        """Write the shards to ``out``, or resume an interrupted preparation, and return the manifest.

        If another process prepares data in ``out``, wait until it has finished.

        Raises:
            UserError: ``out`` contains data that were prepared from a different ``input``, ``shard`` is less than 1, or
                no row gives a record.
        """
        if self.shard < 1:
            raise UserError(f"--shard is {self.shard}; it must be at least 1.")
        out.mkdir(parents=True, exist_ok=True)
        with folder_lock(out):
            finished = _load(out / "manifest.json")
            state = finished or _load(out / ".work" / "progress.json") or self._initial_state()
            if not state["shards"] and (finished or state["input"] != self.input):
                shutil.rmtree(out / ".work", ignore_errors=True)  # nothing was written, so the input may change
                finished, state = None, self._initial_state()
            if state["input"] != self.input:
                raise UserError(
                    f"{out} contains data that were prepared from a different input or with different options. Choose "
                    "another --out, or delete the folder."
                )
            if not finished:
                (out / ".work").mkdir(exist_ok=True)
                try:
                    self._write_shards(out, state, progress)
                except UserError:
                    if not state["shards"]:
                        shutil.rmtree(out / ".work", ignore_errors=True)
                    raise
                for name, text in self.text_files.items():
                    atomic.write_text(out / name, text)
                atomic.write_json(out / "manifest.json", self.manifest(state))
            shutil.rmtree(out / ".work", ignore_errors=True)
            return read_object(out / "manifest.json")

    def _initial_state(self) -> State:
        counts = dict.fromkeys(("rows", *self.count_names), 0)
        return {"input": self.input, "counts": counts, "dropped": {}, "shards": []}

    def _write_shards(self, out: Path, state: State, progress: bool) -> None:
        _save_state(out, state)
        with tqdm(
            desc=self.name, unit="row", total=self.rows, initial=state["counts"]["rows"], disable=not progress
        ) as bar:
            records = self._records(out / ".work", state, bar)
            while (first := next(records, None)) is not None:
                path = out / f"{len(state['shards']):05d}.tar"
                with ShardWriter(path) as shard:
                    for key, fields in chain([first], islice(records, self.shard - 1)):
                        shard.write(key, fields)
                with open(path, "rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
                state["shards"].append({"name": path.name, "records": shard.count, "sha256": checksum})
                _save_state(out, state)
        _save_state(out, state)

    def _records(self, work: Path, state: State, bar: tqdm) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield (key, fields) of the remaining records. ``state`` counts a row before its record is yielded."""
        first = state["counts"]["rows"]
        errors, warned = UnexpectedErrors(self.name, bar.write), set(state["dropped"])
        check = EmptyResultCheck(self.source, self.remedy)
        check.has_record = bool(state["shards"])
        for number, result in enumerate(self.convert(work, first), start=first):
            bar.update()
            for name, count in {"rows": 1, **result.counts}.items():
                state["counts"][name] += count
            if result.fields is None:
                reason, problem = result.dropped, result.unmatched
                if result.bad is not None:
                    reason, problem = result.bad.reason, result.bad.message
                    if reason not in warned:
                        bar.write(f"row {number} is dropped: {result.bad.message} (logged once per reason)")
                    warned.add(reason)
                    errors.add_bad(result.bad.failure)
                state["dropped"][reason] = state["dropped"].get(reason, 0) + 1
                check.add_dropped(reason, problem)
            else:
                errors.add_good()
                check.add_record()
                yield result.key or f"{number:09d}", result.fields
        check.finish()


def add_options(parser: ArgumentParser, shard: int) -> None:
    """Add the common command-line options; ``shard`` is the default number of records per shard."""
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="DIR", help="output folder; an interrupted run is resumed"
    )
    parser.add_argument("--shard", type=integer(1), default=shard, help="records per shard (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def describe_dropped(manifest: Mapping[str, Any]) -> str:
    """Format the counts of dropped rows by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items()) or "nothing"


def _save_state(out: Path, state: State) -> None:
    state["dropped"] = dict(sorted(state["dropped"].items()))
    atomic.write_json(out / ".work" / "progress.json", state)


def _load(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state = read_object(path)
        for key, kind in {"input": dict, "counts": dict, "dropped": dict, "shards": list}.items():
            if not isinstance(state.get(key), kind):
                raise ValueError(f"its {key} are missing or damaged")
        return state
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete the folder and prepare the data again.") from None
