"""``python -m mmf_flava.data.prepare pmd``: convert published annotations and images of one part of PMD to tar shards.

A record contains the original bytes of the image and ``json`` {"captions", "source", "url"}. The manifest also has the
mean number of words per caption. See ``shard_preparation`` for the output folder. During preparation, its subfolder
``.work`` also contains the index of the images.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mmf_flava.command import file_path
from mmf_flava.data.names import is_hidden
from mmf_flava.data.prepare.annotations import Annotation, AnnotationReader, read_pmd_records
from mmf_flava.data.prepare.caption_rules import count_words
from mmf_flava.data.prepare.image_source import ImageSource, fingerprint
from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary, refuse_other_format
from mmf_flava.data.prepare.shard_preparation import RowResult, ShardPreparation, State, add_options, describe_dropped
from mmf_flava.data.record import Reason
from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError

COUNT_NAMES = ("images", "pairs", "words")


@dataclass(frozen=True)
class PmdOptions:
    """Options of ``prepare_pmd``.

    Args:
        part: one of ``PARTS``.
        src: annotation file, or folder of annotation files.
        images: img2dataset's output or a folder of image files.
        format: ``published``, or ``pmd`` for records in the format of facebook/pmd.
        shard: records per shard.
    """

    part: str
    src: Path
    images: Path
    format: str = "published"
    shard: int = 10_000


def prepare_pmd(out: str | Path, options: PmdOptions, progress: bool = True) -> dict[str, Any]:
    """Write the shards of one part to ``out`` and return their manifest.

    Raises:
        UserError: annotations or images were not found, the annotation format is wrong, or ``out`` contains data
            that were prepared from a different input.
    """
    files = annotation_files(options)
    inputs = {
        "part": options.part,
        "format": options.format,
        "records_per_shard": options.shard,
        "annotations": fingerprint(files),
        "images": fingerprint(find_shards(options.images)),
    }

    def convert(work: Path, first: int) -> Iterator[RowResult]:
        source = ImageSource(options.images, work / "images.sqlite")
        for annotation in islice(_annotations(files, options), first, None):
            result = convert_row(annotation, lambda row: _record(row, source, options.part))
            yield RowResult(bad=result) if isinstance(result, BadRow) else result

    manifest = partial(_manifest, options.part)
    preparation = ShardPreparation(options.part, inputs, convert, manifest, COUNT_NAMES, options.shard)
    return preparation.run(Path(out), progress)


def _record(annotation: Annotation, source: ImageSource, part: str) -> RowResult:
    if annotation.bad is not None:
        return RowResult(bad=annotation.bad)
    image = None if annotation.dropped else source.read(annotation)
    if image is None:
        return RowResult(dropped=annotation.dropped or Reason.NO_IMAGE)
    captions = annotation.captions
    metadata = {"captions": captions, "source": part, "url": annotation.url}
    counts = {"images": 1, "pairs": len(captions), "words": sum(map(count_words, captions))}
    return RowResult({image[0]: image[1], "json": json.dumps(metadata).encode()}, counts)


def annotation_files(options: PmdOptions) -> list[Path]:
    """Return the annotation files at ``options.src``. Raise UserError if there are none."""
    src = Path(options.src)
    if src.is_file():
        return [src]
    patterns = [PARTS[options.part].files] if options.format == "published" else ["*.jsonl", "*.parquet"]
    files = sorted(
        path
        for path in (src.iterdir() if src.is_dir() else ())
        if any(fnmatchcase(path.name.lower(), pattern) for pattern in patterns)
        and not is_hidden(path.name)
        and path.is_file()
    )
    if not files:
        raise UserError(f"{src}: no annotations of {options.part} found. Expected files: {', '.join(patterns)}.")
    return files


def _annotations(files: list[Path], options: PmdOptions) -> Iterator[Annotation]:
    reader: AnnotationReader = read_pmd_records if options.format == "pmd" else PARTS[options.part].reader
    for path in files:
        other_format = partial(_other_format, path, options)
        with file_boundary(other_format):
            yield from refuse_other_format(reader(path), lambda annotation: annotation.bad, other_format)


def _other_format(path: Path, options: PmdOptions, problem: str) -> UserError:
    publisher = "facebook/pmd" if options.format == "pmd" else options.part
    return UserError(
        f"{path} is not in the format of {publisher} or is truncated ({problem}). Check --part and --format, or "
        "download the file again."
    )


def _manifest(part: str, state: State) -> dict[str, Any]:
    counts = dict(state["counts"])
    mean = counts.pop("words") / max(1, counts["pairs"])
    paper = {"pairs_millions": PARTS[part].pairs, "mean_caption_words": PARTS[part].words}
    return {
        "kind": "pmd",
        "input": state["input"],
        "licence": PARTS[part].licence,
        "paper": paper,
        "counts": counts,
        "mean_caption_words": round(mean, 3),
        "dropped": state["dropped"],
        "shards": state["shards"],
    }


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "pmd", help="create tar shards from published annotations and images of one part of PMD"
    )
    parser.add_argument("--part", required=True, choices=sorted(PARTS), help="part of PMD")
    parser.add_argument(
        "--src", required=True, type=file_path, metavar="PATH", help="annotation file or folder of annotation files"
    )
    parser.add_argument(
        "--images",
        type=file_path,
        metavar="DIR",
        help="img2dataset's output or a folder of image files (default: the folder of --src)",
    )
    parser.add_argument(
        "--format",
        choices=("published", "pmd"),
        default="published",
        help="format of --src: as published, or as in facebook/pmd (default: %(default)s)",
    )
    add_options(parser, PmdOptions.shard)
    parser.set_defaults(run=run_pmd)


def run_pmd(arguments: argparse.Namespace) -> None:
    images = arguments.images or (arguments.src if arguments.src.is_dir() else arguments.src.parent)
    options = PmdOptions(arguments.part, arguments.src, images, arguments.format, arguments.shard)
    manifest = prepare_pmd(arguments.out, options, progress=not arguments.quiet)
    counts = manifest["counts"]
    print(
        f"{arguments.part}: {counts['pairs']} pairs of {counts['images']} images, "
        f"{manifest['mean_caption_words']} words per caption (paper: {manifest['paper']['pairs_millions']} M pairs, "
        f"{manifest['paper']['mean_caption_words']} words). Dropped: {describe_dropped(manifest)}."
    )
