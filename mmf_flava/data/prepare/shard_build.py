"""A build of tar shards that can be killed at any moment: what the builders of images and of pairs share.

The folder built holds
    00000.tar, ...   the records, in the order of the rows that they were made of
    manifest.json    counts, reasons of what was dropped, checksums; written last
    .build/          while building: how far the build is, and what the builder keeps there

A killed build goes on after its last whole shard; what a shard holds depends on the input alone.
"""

import hashlib
import json
import os
import shutil
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from mmf_flava.data.prepare.lock import locked
from mmf_flava.data.shards import ShardWriter
from mmf_flava.errors import UserError

State = dict[str, Any]


class Made(NamedTuple):
    """What became of a row: the parts of a record and what to count, or the reason why it is dropped."""

    parts: dict[str, bytes] | None = None
    counts: Mapping[str, int] = {}
    dropped: str = ""


@dataclass(frozen=True)
class ShardBuild:
    """One build.

    Args:
        name: what the progress bar says.
        input: what the build depends on; a folder that was begun with another input is refused.
        make: (folder for the builder's own files, number of the first row) -> what became of that row and the next.
        manifest: makes the manifest of the last state: ``input``, ``counts``, ``dropped`` and ``shards``.
        counted: names of the counts, beside ``rows``.
        shard: records a shard.
        rows: how many rows there are, where that is known.
        texts: further files, name -> content.
    """

    name: str
    input: Mapping[str, Any]
    make: Callable[[Path, int], Iterator[Made]]
    manifest: Callable[[State], dict[str, Any]]
    counted: tuple[str, ...]
    shard: int
    rows: int | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    def run(self, out: Path, progress: bool = True) -> dict[str, Any]:
        """Builds in ``out``, or goes on, and returns the manifest. Another build in ``out`` is waited for.

        Raises:
            UserError: ``out`` holds a build of another input, or ``shard`` is not above 0.
        """
        if self.shard < 1:
            raise UserError(f"--shard is {self.shard}; a shard holds at least one record.")
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            finished = _load(out / "manifest.json")
            state = finished or _load(out / ".build" / "progress.json") or self._begun()
            if state["input"] != self.input:
                raise UserError(f"{out} holds a build of other input or options: choose another --out or delete it.")
            if not finished:
                for left in out.glob(".*.partial"):  # of a build that was killed
                    left.unlink()
                (out / ".build").mkdir(exist_ok=True)
                self._write_shards(out, state, progress)
                for name, text in self.texts.items():
                    _save(out / name, text)
                _save(out / "manifest.json", _json(self.manifest(state)))
            shutil.rmtree(out / ".build", ignore_errors=True)
            return json.loads((out / "manifest.json").read_text(encoding="utf-8"))

    def _begun(self) -> State:
        return {"input": self.input, "counts": dict.fromkeys(("rows", *self.counted), 0), "dropped": {}, "shards": []}

    def _write_shards(self, out: Path, state: State, progress: bool) -> None:
        _keep(out, state)
        with tqdm(
            desc=self.name, unit="row", total=self.rows, initial=state["counts"]["rows"], disable=not progress
        ) as bar:
            records = self._records(out / ".build", state, bar)
            while (first := next(records, None)) is not None:
                path = out / f"{len(state['shards']):05d}.tar"
                with ShardWriter(path) as shard:
                    for key, parts in chain([first], islice(records, self.shard - 1)):
                        shard.write(key, parts)
                with open(path, "rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
                state["shards"].append({"name": path.name, "records": shard.count, "sha256": checksum})
                _keep(out, state)
        _keep(out, state)

    def _records(self, work: Path, state: State, bar: tqdm) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The records of the rows that are left; ``state`` counts a row before its record comes."""
        first = state["counts"]["rows"]
        for number, made in enumerate(self.make(work, first), start=first):
            bar.update()
            for name, count in {"rows": 1, **made.counts}.items():
                state["counts"][name] += count
            if made.parts is None:
                state["dropped"][made.dropped] = state["dropped"].get(made.dropped, 0) + 1
            else:
                yield f"{number:09d}", made.parts


def add_options(parser: ArgumentParser, shard: int) -> None:
    """The options that every such command has; ``shard`` is the default."""
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to build; a second call goes on")
    parser.add_argument("--shard", type=int, default=shard, help="records a shard (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def lost(manifest: Mapping[str, Any]) -> str:
    """What was dropped, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items()) or "nothing"


def _keep(out: Path, state: State) -> None:
    state["dropped"] = dict(sorted(state["dropped"].items()))
    _save(out / ".build" / "progress.json", _json(state))


def _load(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _save(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
