"""``python -m mmf_flava.data.build pmd``: one part of PMD, from published annotations and images to tar shards.

The folder built holds
    00000.tar, ...   records: the image's bytes as they are, and ``json`` {"captions", "source", "url"}
    manifest.json    counts, reasons of what was dropped, mean words, checksums; written last
    .build/          while building: the index of the images, and how far the build is

A killed build goes on after its last whole shard; what a shard holds depends on the input alone.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.build.caption_rules import count_words
from mmf_flava.data.build.image_source import ImageSource, fingerprint
from mmf_flava.data.build.lock import locked
from mmf_flava.data.build.pmd_parts import PARTS
from mmf_flava.data.build.published import UNREADABLE, Reader, Row, read_pmd_records
from mmf_flava.data.shards import ShardWriter, shard_paths
from mmf_flava.errors import UserError

COUNTS = ("rows", "images", "pairs", "words")


@dataclass(frozen=True)
class PmdOptions:
    """``src``: annotations, a file or a folder; ``images``: img2dataset's output or a folder of image files;
    ``format``: published, or pmd for records as facebook/pmd has them; ``shard``: records a shard."""

    part: str
    src: Path
    images: Path
    format: str = "published"
    shard: int = 10_000


def build_pmd(out: str | Path, options: PmdOptions, progress: bool = True) -> dict[str, Any]:
    """Builds one part in ``out`` and returns its manifest.

    Raises:
        UserError: no annotations or images, annotations in another format, or an ``out`` that another build owns.
    """
    out, files = Path(out), annotation_files(options)
    began_with = {
        "part": options.part,
        "format": options.format,
        "records_per_shard": options.shard,
        "annotations": fingerprint(files),
        "images": fingerprint(shard_paths(options.images)),
    }
    work = out / ".build"
    work.mkdir(parents=True, exist_ok=True)
    with locked(work):
        finished = _load(out / "manifest.json")
        state = finished or _load(work / "progress.json") or {"input": began_with, "counts": {}, "shards": []}
        if state["input"] != began_with:
            raise UserError(f"{out} holds a build of other input or options: choose another --out or delete it.")
        if not finished:
            for left in out.glob(".*.partial"):  # of a build that was killed
                left.unlink()
            _save(work / "progress.json", state)
            source = ImageSource(options.images, work / "images.sqlite")
            _Build(out, options, state).run(_rows(files, options), source, progress)
            _save(out / "manifest.json", _manifest(state, options.part))
    shutil.rmtree(work, ignore_errors=True)
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


class _Build:
    """The loop over the rows; ``state`` is what is saved after each shard."""

    def __init__(self, out: Path, options: PmdOptions, state: dict[str, Any]):
        self.out, self.options, self.state = out, options, state
        self.counts = Counter(state["counts"])
        self.dropped = Counter(state.get("dropped", {}))

    def run(self, rows: Iterator[Row], source: ImageSource, progress: bool) -> None:
        done = self.counts["rows"]
        pending: list[tuple[str, dict[str, bytes]]] = []
        with tqdm(desc=self.options.part, unit="row", disable=not progress) as bar:
            for number, row in enumerate(rows):
                bar.update()
                if number < done:
                    continue
                self.counts["rows"] += 1
                if (record := self._record(row, source)) is not None:
                    pending.append((f"{number:09d}", record))
                if len(pending) == self.options.shard:
                    self._write(pending)
                    pending = []
        if pending:
            self._write(pending)
        else:
            self._keep()

    def _record(self, row: Row, source: ImageSource) -> dict[str, bytes] | None:
        image = None if row.dropped else source.read(row)
        if image is None:
            self.dropped[row.dropped or "no image"] += 1
            return None
        self.counts.update(images=1, pairs=len(row.captions), words=sum(map(count_words, row.captions)))
        about = {"captions": row.captions, "source": self.options.part, "url": row.url}
        return {image[0]: image[1], "json": json.dumps(about).encode()}

    def _write(self, records: list[tuple[str, dict[str, bytes]]]) -> None:
        path = self.out / f"{len(self.state['shards']):05d}.tar"
        with ShardWriter(path) as shard:
            for key, parts in records:
                shard.write(key, parts)
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        self.state["shards"].append({"name": path.name, "records": len(records), "sha256": checksum})
        self._keep()

    def _keep(self) -> None:
        self.state["counts"] = {name: self.counts[name] for name in COUNTS}
        self.state["dropped"] = dict(sorted(self.dropped.items()))
        _save(self.out / ".build" / "progress.json", self.state)


def annotation_files(options: PmdOptions) -> list[Path]:
    """The files at ``src``; UserError when there are none."""
    src = Path(options.src)
    if src.is_file():
        return [src]
    patterns = [PARTS[options.part].files] if options.format == "published" else ["*.jsonl", "*.parquet"]
    files = sorted(path for pattern in patterns for path in src.glob(pattern) if path.is_file())
    if not files:
        raise UserError(f"There are no annotations of {options.part} at {src}: looked for {', '.join(patterns)}.")
    return files


def _rows(files: list[Path], options: PmdOptions) -> Iterator[Row]:
    reader: Reader = read_pmd_records if options.format == "pmd" else PARTS[options.part].reader
    for path in files:
        try:
            yield from reader(path)
        except UserError:
            raise
        except UNREADABLE as error:
            kind = "facebook/pmd's records" if options.format == "pmd" else f"the published format of {options.part}"
            raise UserError(f"{path} is not in {kind}, or is cut short ({type(error).__name__}: {error}).") from error


def _manifest(state: dict[str, Any], part: str) -> dict[str, Any]:
    counts = dict(state["counts"])
    mean = counts.pop("words") / max(1, counts["pairs"])
    expected = {"pairs_millions": PARTS[part].pairs, "mean_caption_words": PARTS[part].words}
    return {
        "kind": "pmd",
        "input": state["input"],
        "licence": PARTS[part].licence,
        "paper": expected,
        "counts": counts,
        "mean_caption_words": round(mean, 3),
        "dropped": state["dropped"],
        "shards": state["shards"],
    }


def _load(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _save(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(data, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("pmd", help="one part of PMD, from published annotations and images to tar shards")
    parser.add_argument("--part", required=True, choices=sorted(PARTS), help="which of the nine")
    parser.add_argument("--src", required=True, type=Path, metavar="PATH", help="annotations: a file, or their folder")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="img2dataset's output or image files (default: --src)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to build; a second call goes on")
    parser.add_argument(
        "--format", choices=("published", "pmd"), default="published", help="pmd: facebook/pmd's records"
    )
    parser.add_argument("--shard", type=int, default=PmdOptions.shard, help="records a shard (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_pmd)


def run_pmd(arguments: argparse.Namespace) -> None:
    if arguments.shard < 1:
        raise UserError(f"--shard is {arguments.shard}; a shard holds at least one record.")
    images = arguments.images or (arguments.src if arguments.src.is_dir() else arguments.src.parent)
    options = PmdOptions(arguments.part, arguments.src, images, arguments.format, arguments.shard)
    manifest = build_pmd(arguments.out, options, progress=not arguments.quiet)
    counts, dropped = manifest["counts"], manifest["dropped"]
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "nothing"
    print(
        f"{arguments.part}: {counts['pairs']} pairs of {counts['images']} images, "
        f"{manifest['mean_caption_words']} words a caption (paper: {manifest['paper']['pairs_millions']} M pairs, "
        f"{manifest['paper']['mean_caption_words']} words). Dropped: {lost}."
    )
