"""``python -m mmf_flava.data.prepare pmd``: one part of PMD, from published annotations and images to tar shards.

A record is the image's bytes as they are, and ``json`` {"captions", "source", "url"}; the manifest has the mean words
of a caption too. While it is being built, the index of the images lies in ``.build``. See ``shard_build`` for the rest.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.caption_rules import count_words
from mmf_flava.data.prepare.image_source import ImageSource, fingerprint
from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.published import UNREADABLE, Reader, Row, read_pmd_records
from mmf_flava.data.prepare.shard_build import Made, ShardBuild, State, add_options, lost
from mmf_flava.data.record import Reason
from mmf_flava.data.shards import shard_paths
from mmf_flava.errors import UserError

COUNTED = ("images", "pairs", "words")


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
    files = annotation_files(options)
    began_with = {
        "part": options.part,
        "format": options.format,
        "records_per_shard": options.shard,
        "annotations": fingerprint(files),
        "images": fingerprint(shard_paths(options.images)),
    }

    def make(work: Path, first: int) -> Iterator[Made]:
        source = ImageSource(options.images, work / "images.sqlite")
        for row in islice(_rows(files, options), first, None):
            yield _record(row, source, options.part)

    build = ShardBuild(options.part, began_with, make, partial(_manifest, options.part), COUNTED, options.shard)
    return build.run(Path(out), progress)


def _record(row: Row, source: ImageSource, part: str) -> Made:
    image = None if row.dropped else source.read(row)
    if image is None:
        return Made(dropped=row.dropped or Reason.NO_IMAGE)
    about = {"captions": row.captions, "source": part, "url": row.url}
    counts = {"images": 1, "pairs": len(row.captions), "words": sum(map(count_words, row.captions))}
    return Made({image[0]: image[1], "json": json.dumps(about).encode()}, counts)


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


def _manifest(part: str, state: State) -> dict[str, Any]:
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


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("pmd", help="one part of PMD, from published annotations and images to tar shards")
    parser.add_argument("--part", required=True, choices=sorted(PARTS), help="which of the nine")
    parser.add_argument("--src", required=True, type=Path, metavar="PATH", help="annotations: a file, or their folder")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="img2dataset's output or image files (default: --src)"
    )
    parser.add_argument(
        "--format", choices=("published", "pmd"), default="published", help="pmd: facebook/pmd's records"
    )
    add_options(parser, PmdOptions.shard)
    parser.set_defaults(run=run_pmd)


def run_pmd(arguments: argparse.Namespace) -> None:
    images = arguments.images or (arguments.src if arguments.src.is_dir() else arguments.src.parent)
    options = PmdOptions(arguments.part, arguments.src, images, arguments.format, arguments.shard)
    manifest = build_pmd(arguments.out, options, progress=not arguments.quiet)
    counts = manifest["counts"]
    print(
        f"{arguments.part}: {counts['pairs']} pairs of {counts['images']} images, "
        f"{manifest['mean_caption_words']} words a caption (paper: {manifest['paper']['pairs_millions']} M pairs, "
        f"{manifest['paper']['mean_caption_words']} words). Dropped: {lost(manifest)}."
    )
