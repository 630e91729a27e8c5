"""``python -m mmf_flava.data.prepare imagenet``: convert Hugging Face parquet files of labelled images to tar shards.

A row has ``image`` {"bytes", "path"} and optionally ``label``, the class number. A record contains the original bytes
of the image and, if the label is 0 or more (test splits have -1), ``cls``, the class number in ASCII. If the parquet
metadata has class names, ``classes.txt`` lists them, one per line. See ``shard_preparation`` for the output folder.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.command import file_path
from mmf_flava.data.annotations import NO_LABEL, clean_text, to_label
from mmf_flava.data.image_folder import find_images
from mmf_flava.data.names import is_hidden
from mmf_flava.data.prepare.executors import LOCAL, Executor
from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.row_tasks import RowResult
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary
from mmf_flava.data.prepare.shard_preparation import ShardPreparation, State, add_options, describe_dropped
from mmf_flava.data.prepare.source_files import open_parquet, read_parquet
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_json

SHARD = 2000  # rows per shard, about 220 MB of ImageNet
BATCH = 64  # rows in memory at a time
# First bytes of an image file, as regular expressions. A WebP file has its length between the two words.
SIGNATURES = {
    "jpg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8",
    "bmp": rb"BM",
    "tif": rb"II\*\0|MM\0\*",
}
# Files of the split train are called train-00000-of-00294.parquet; older datasets append a hash. In the Hugging Face
# hub's automatic conversions, they are called train/0000.parquet.
SPLIT_OF_FILE = re.compile(r"(.+)-\d+-of-\d+(-[0-9a-f]+)?\.parquet", re.IGNORECASE)


ARCHIVE = re.compile(r"ILSVRC2012_.*\.tar(\.gz)?")


@dataclass(frozen=True)
class Table:
    """A parquet file: number of rows, columns to read, and class names (empty if the metadata has none)."""

    path: Path
    rows: int
    columns: list[str]
    classes: tuple[str, ...]


def prepare_imagenet(
    out: Path,
    src: Sequence[Path],
    split: str | None = None,
    shard: int = SHARD,
    progress: bool = True,
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Write shards to ``out`` and return their manifest.

    Args:
        src: parquet files, or folders that contain them at any depth.
        split: read only the files of this split.
        shard: rows per shard.

    Raises:
        UserError: no parquet files were found, the files belong to several splits and none is selected, columns are
            unexpected, or ``out`` contains data that were prepared from a different input.
    """
    files = parquet_files(src, split)
    tables = [_open(path) for path in files]
    classes = tables[0].classes
    for table in tables:
        if table.classes != classes:
            raise UserError(f"{table.path} and {tables[0].path} have different class names. Prepare them separately.")
    inputs = {"split": split, "records_per_shard": shard, "parquet": fingerprint(files)}

    preparation = ShardPreparation(
        split or "images",
        inputs,
        partial(_results, tables, len(classes)),
        partial(_manifest, len(classes)),
        count_names=("images", "labels"),
        shard=shard,
        rows=sum(table.rows for table in tables),
        text_files={"classes.txt": "".join(f"{name}\n" for name in classes)} if classes else {},
        source=", ".join(map(str, src)),
        remedy="Expected encoded images in image.bytes, and labels below the number of classes.",
    )
    return preparation.run(out, progress, executor)


def parquet_files(src: Sequence[Path], split: str | None) -> list[Path]:
    """Return the parquet files of one split, sorted within each path of ``src``.

    Raises:
        UserError: there are no files, no files of ``split``, or several splits and ``split`` is None.
    """
    files = [
        file
        for path in src
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file == path or (file.suffix.lower() == ".parquet" and not any(map(is_hidden, file.relative_to(path).parts)))
    ]
    splits = sorted({_split(path) for path in files})
    selected = [path for path in files if split is None or _split(path) == split]
    where = ", ".join(map(str, src))
    _refuse_other_layouts(src, files)
    if not files:
        raise UserError(f"{where}: no parquet files found. Set --src to *.parquet files or their folder.")
    if not selected:
        raise UserError(f"{where}: no split {split!r} found. Available splits: {', '.join(splits)}.")
    if split is None and len(splits) > 1:
        raise UserError(f"{where} contains several splits. Select one of {', '.join(splits)} with --split.")
    return selected


def _refuse_other_layouts(src: Sequence[Path], files: list[Path]) -> None:
    """Raise UserError for ImageNet's archives and for class folders, which are not prepared by this command."""
    found = [path for folder in src if folder.is_dir() for path in sorted(folder.glob("ILSVRC2012_*.tar*"))]
    archives = found if not files else [path for path in files if ARCHIVE.fullmatch(path.name)]
    if archives:
        split = "val" if "val" in archives[0].name else "train"
        raise UserError(
            f"{archives[0]}: ImageNet's archives are not read by this command. Put them and "
            'ILSVRC2012_devkit_t12.tar.gz into one folder and unpack them into class folders with `python -c "from '
            f"torchvision.datasets import ImageNet; ImageNet('FOLDER', '{split}')\"`. The dataset imagenet reads "
            f"FOLDER/{split} directly."
        )
    if not files and len(src) == 1 and src[0].is_dir() and next(iter(find_images(src[0])), None) is not None:
        raise UserError(
            f"{src[0]}: image files need no preparation. Set dataset_config.imagenet.splits to the folder of the class "
            "folders."
        )


def _split(path: Path) -> str:
    match = SPLIT_OF_FILE.fullmatch(path.name)
    return match[1] if match else path.parent.name


def _open(path: Path) -> Table:
    boundary = file_boundary(partial(_damaged, path, "is not a parquet file or is truncated"))
    with boundary, open_parquet(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        leaves = {file.schema.column(n).path for n in range(len(file.schema))}
    labelled = "label" in leaves
    if "image.bytes" not in leaves or (labelled and not re.match("u?int", str(schema.field("label").type))):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"{path}: expected the columns image {{bytes, path}} and optionally label (an integer), got {columns}."
        )
    try:
        metadata = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata["info"]["features"]["label"]["names"]
        classes = tuple(" ".join(clean_text(str(name)).split()) for name in names)
    except (ValueError, KeyError, TypeError):
        classes = ()
    return Table(path, rows, ["image.bytes", *(["label"] if labelled else [])], classes)


def _damaged(path: Path, state: str, problem: str) -> UserError:
    return UserError(f"{path} {state} ({problem}). Download the file again.")


def _results(tables: list[Table], classes: int, work: Path, first: int) -> Iterator[RowResult]:
    """Yield the results of the rows from row ``first`` on, see ``ShardPreparation``."""
    for row in _rows(tables, first):
        result = convert_row(row, partial(_record, classes=classes))
        yield RowResult(bad=result) if isinstance(result, BadRow) else result


def _rows(tables: list[Table], first: int) -> Iterator[Any]:
    for table in tables:
        if first < table.rows:
            with file_boundary(partial(_damaged, table.path, "is corrupt")):
                yield from read_parquet(table.path, table.columns, first, BATCH)
        first = max(0, first - table.rows)


def _record(row: dict[str, Any], classes: int) -> RowResult:
    data = (row["image"] or {}).get("bytes")
    if data is None:
        return RowResult(dropped=Reason.NO_IMAGE, unmatched="image.bytes is null")
    if not data:
        return RowResult(dropped=Reason.EMPTY_IMAGE, unmatched="image.bytes is empty")
    extension = next((name for name, start in SIGNATURES.items() if re.match(start, data, re.DOTALL)), None)
    if extension is None:
        return RowResult(dropped=Reason.NOT_AN_IMAGE, unmatched=f"image.bytes starts with {data[:16]!r}")
    try:
        label = to_label(row.get("label"))
    except ValueError as error:
        return RowResult(dropped=Reason.UNREADABLE_LABEL, unmatched=str(error))
    if label == NO_LABEL:
        return RowResult({extension: data}, {"images": 1})
    if classes and label >= classes:
        return RowResult(dropped="unknown label", unmatched=f"label {label}, but there are {classes} class names")
    return RowResult({extension: data, "cls": str(label).encode()}, {"images": 1, "labels": 1})


def _manifest(classes: int, state: State) -> dict[str, Any]:
    return {"kind": "imagenet", "classes": classes, **state}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "imagenet", help="create tar shards from Hugging Face parquet files of labelled images"
    )
    parser.add_argument(
        "--src", required=True, type=file_path, nargs="+", metavar="PATH", help="parquet files or their folder"
    )
    parser.add_argument(
        "--split", help="split to read; train reads files such as train-00000-of-00294.parquet and train/0000.parquet"
    )
    add_options(parser, SHARD)
    parser.set_defaults(run=run_imagenet)


def run_imagenet(arguments: argparse.Namespace) -> None:
    manifest = prepare_imagenet(
        arguments.out, arguments.src, arguments.split, arguments.shard, not arguments.quiet, arguments.executor
    )
    counts, classes = manifest["counts"], f"{manifest['classes'] or 'unnamed'} classes"
    print(
        f"{arguments.out}: {counts['images']} images, {counts['labels']} with labels, {classes}. "
        f"Dropped: {describe_dropped(manifest)}."
    )
