"""``python -m mmf_flava.data.prepare imagenet``: images with labels, from Hugging Face's parquet files to tar shards.

A row has ``image`` {"bytes", "path"} and perhaps ``label``, the class number. A record is the image's bytes as they
are, and ``cls``, the number in ASCII, where the row has a label of 0 or more (test splits have -1). Where the files
name their classes, ``classes.txt`` lists them, a line each. See ``shard_build`` for the rest.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.published import UNREADABLE, open_parquet, read_parquet
from mmf_flava.data.prepare.shard_build import Made, ShardBuild, State, add_options, lost
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError

SHARD = 2000  # records: about 220 MB of ImageNet's images
BATCH = 64  # rows that are in memory at a time
# What an image file begins with. WebP has a length between its two words.
SIGNATURES = {
    "jpg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8",
    "bmp": rb"BM",
    "tif": rb"II\*\0|MM\0\*",
}
# data/train-00000-of-00294.parquet, with a hash in older data sets; the hub's own conversions are train/0000.parquet
SPLIT_OF_FILE = re.compile(r"(.+)-\d+-of-\d+(-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True)
class Table:
    """A parquet file: its rows, the columns to read, and the names of its classes (none where it names none)."""

    path: Path
    rows: int
    columns: list[str]
    classes: tuple[str, ...]


def build_imagenet(
    out: Path, src: Sequence[Path], split: str | None = None, shard: int = SHARD, progress: bool = True
) -> dict[str, Any]:
    """Builds shards in ``out`` and returns their manifest.

    Args:
        src: parquet files, or folders in which they lie in any depth.
        split: takes the files of this split only.
        shard: records a shard.

    Raises:
        UserError: no parquet, several splits and none chosen, other columns, or an ``out`` that another build owns.
    """
    files = parquet_files(src, split)
    tables = [_open(path) for path in files]
    classes = tables[0].classes
    for table in tables:
        if table.classes != classes:
            raise UserError(f"{table.path} names other classes than {tables[0].path}: build them apart.")
    began_with = {"split": split, "records_per_shard": shard, "parquet": fingerprint(files)}

    def make(_work: Path, first: int) -> Iterator[Made]:
        for row in _rows(tables, first):
            yield _record(row, len(classes))

    build = ShardBuild(
        split or "images",
        began_with,
        make,
        partial(_manifest, len(classes)),
        counted=("images", "labels"),
        shard=shard,
        rows=sum(table.rows for table in tables),
        texts={"classes.txt": "".join(f"{name}\n" for name in classes)} if classes else {},
    )
    return build.run(out, progress)


def parquet_files(src: Sequence[Path], split: str | None) -> list[Path]:
    """The parquet files of one split, sorted in each of ``src``; UserError when there are none, or several splits."""
    found = [path for place in src for path in ([place] if place.is_file() else sorted(place.rglob("*.parquet")))]
    splits = sorted({_split(path) for path in found})
    chosen = [path for path in found if split is None or _split(path) == split]
    where = ", ".join(map(str, src))
    if not found:
        raise UserError(f"There is no parquet at {where}: give *.parquet files or their folder.")
    if not chosen:
        raise UserError(f"There is no split {split!r} at {where}: there are {', '.join(splits)}.")
    if split is None and len(splits) > 1:
        raise UserError(f"There are several splits at {where}: choose one of {', '.join(splits)} with --split.")
    return chosen


def _split(path: Path) -> str:
    match = SPLIT_OF_FILE.fullmatch(path.name)
    return match[1] if match else path.parent.name


def _open(path: Path) -> Table:
    try:
        with open_parquet(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            leaves = {file.schema.column(n).path for n in range(len(file.schema))}
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{path} is not parquet, or is cut short ({error}).") from None
    labelled = "label" in leaves
    if "image.bytes" not in leaves or (labelled and not re.match("u?int", str(schema.field("label").type))):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"{path} does not have the columns image {{bytes, path}} and label (a number), but {columns}: give files "
            "that have."
        )
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"]["label"]["names"]
        classes = tuple(" ".join(str(name).split()) for name in names)
    except (ValueError, KeyError, TypeError):
        classes = ()
    return Table(path, rows, ["image.bytes", *(["label"] if labelled else [])], classes)


def _rows(tables: list[Table], first: int) -> Iterator[dict[str, Any]]:
    for table in tables:
        if first < table.rows:
            try:
                yield from read_parquet(table.path, table.columns, first, BATCH)
            except UNREADABLE as error:
                raise UserError(f"{table.path} is damaged ({error}): fetch it again.") from error
        first = max(0, first - table.rows)


def _record(row: dict[str, Any], classes: int) -> Made:
    data, label = (row["image"] or {}).get("bytes"), row.get("label")
    if data is None:
        return Made(dropped=Reason.NO_IMAGE)
    if not data:
        return Made(dropped=Reason.EMPTY_IMAGE)
    extension = next((name for name, start in SIGNATURES.items() if re.match(start, data, re.DOTALL)), None)
    if extension is None:
        return Made(dropped=Reason.NOT_AN_IMAGE)
    if label is None or label < 0:
        return Made({extension: data}, {"images": 1})
    if classes and label >= classes:
        return Made(dropped="unknown label")
    return Made({extension: data, "cls": str(label).encode()}, {"images": 1, "labels": 1})


def _manifest(classes: int, state: State) -> dict[str, Any]:
    return {"kind": "imagenet", "classes": classes, **state}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("imagenet", help="images with labels, from Hugging Face's parquet to tar shards")
    parser.add_argument(
        "--src", required=True, type=Path, nargs="+", metavar="PATH", help="parquet files, or their folder"
    )
    parser.add_argument("--split", help="which files: train takes train-00000-of-00294.parquet and train/0000.parquet")
    add_options(parser, SHARD)
    parser.set_defaults(run=run_imagenet)


def run_imagenet(arguments: argparse.Namespace) -> None:
    manifest = build_imagenet(
        arguments.out, arguments.src, arguments.split, arguments.shard, progress=not arguments.quiet
    )
    counts, classes = manifest["counts"], f"{manifest['classes'] or 'unnamed'} classes"
    print(
        f"{arguments.out}: {counts['images']} images, {counts['labels']} with a label, {classes}. "
        f"Dropped: {lost(manifest)}."
    )
