"""``python -m mmf_flava.data.prepare pmd``: convert published annotations and images of one part of PMD to tar shards.

A record contains the original bytes of the image and ``json`` {"captions", "source", "url"}. The manifest also has the
mean number of words per caption. See ``shard_preparation`` for the output folder. During preparation, its subfolder
``.work`` also contains the index of the images.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.command import file_path
from mmf_flava.data.prepare.annotation_converter import AnnotationConverter
from mmf_flava.data.prepare.annotation_rows import AnnotationRows, PairRows
from mmf_flava.data.prepare.annotations import AnnotationReader
from mmf_flava.data.prepare.evaluation_images import (
    KEEP_ALL,
    is_split_file,
    read_evaluation_images,
    require_split_files,
)
from mmf_flava.data.prepare.executors import LOCAL, Executor
from mmf_flava.data.prepare.file_checks import is_pmd
from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.part_files import Selection, annotation_candidates, select_files
from mmf_flava.data.prepare.pmd_parts import PARTS, evaluation_sets
from mmf_flava.data.prepare.pmd_records import read_pmd_records
from mmf_flava.data.prepare.shard_preparation import ShardPreparation, State, add_options, describe_dropped
from mmf_flava.data.prepare.visual_genome import read_visual_genome, require_image_data
from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError

COUNT_NAMES = ("images", "pairs", "words")
REGIONS = ("image", "crop")
REMEDY = (
    "Check --part, and set --images to the images of these annotations: img2dataset's output, which is matched by URL, "
    "or image files, which are matched by name. Leave annotations out of --src whose images you do not have."
)


@dataclass(frozen=True)
class PmdOptions:
    """Options of ``prepare_pmd``.

    Args:
        part: one of ``PARTS``.
        src: annotation file, or folder of annotation files.
        images: img2dataset's output or a folder of image files.
        format: ``published``, or ``pmd`` for records in the format of facebook/pmd.
        shard: rows per shard.
        exclude: Karpathy's split files, whose val and test images are left out; or ``none`` to keep all images.
        regions: ``crop`` for a record of each region of Visual Genome, instead of one of each image.
    """

    part: str
    src: Path
    images: Path
    format: str = "published"
    shard: int = 10_000
    exclude: tuple[str | Path, ...] = ()
    regions: str = "image"


def prepare_pmd(
    out: str | Path, options: PmdOptions, progress: bool = True, executor: Executor = LOCAL
) -> dict[str, Any]:
    """Write the shards of one part to ``out`` and return their manifest.

    Raises:
        UserError: annotations or images were not found, the annotation format is wrong, a split file is missing, or
            ``out`` contains data that were prepared from a different input.
    """
    if options.regions != "image" and (options.part, options.format) != ("visual_genome", "published"):
        raise UserError(
            f"--regions {options.regions}: only published Visual Genome annotations have regions. Remove it."
        )
    splits = _split_files(options)
    evaluation = read_evaluation_images(splits)
    selection = annotation_files(options, all_splits="coco" in evaluation.sets)
    files, keeps_all = selection.read, KEEP_ALL in map(str, options.exclude)
    if not keeps_all:
        require_split_files(options.part, evaluation_sets(options.part, files), evaluation)
        if options.part == "visual_genome" and options.format == "published":
            require_image_data(files)
    inputs = {
        "part": options.part,
        "format": options.format,
        "records_per_shard": options.shard,
        "regions": options.regions,
        "annotations": fingerprint([*files, *selection.companions]),
        "images": fingerprint(find_shards(options.images)),
        "exclude": [KEEP_ALL] if keeps_all else [f"{path.name} {fingerprint([path])}" for path in splits],
    }

    converter = AnnotationConverter(options.part, Path(options.images), evaluation, keeps_all, progress)
    preparation = ShardPreparation(
        options.part,
        inputs,
        PairRows(AnnotationRows(files, _reader(options), partial(_other_format, options)), converter),
        partial(_manifest, options.part, selection),
        COUNT_NAMES,
        options.shard,
        source=str(options.src),
        remedy=REMEDY,
    )
    return preparation.run(Path(out), progress, executor)


def _split_files(options: PmdOptions) -> list[Path]:
    """Return the split files of ``--exclude``, and those among the annotations, unless all images are kept."""
    given = [Path(path).expanduser() for path in options.exclude if str(path) != KEEP_ALL]
    if KEEP_ALL in map(str, options.exclude):
        return given
    src = Path(options.src)
    candidates = annotation_candidates(src) if src.is_dir() else [src]
    beside = [path for path in candidates if path.is_file() and is_split_file(path)]
    return list(dict.fromkeys([*given, *beside]))


def annotation_files(options: PmdOptions, all_splits: bool = False) -> Selection:
    """Return the annotation files at ``options.src``.

    Args:
        all_splits: read COCO's annotations of val too, whose evaluation images are left out by their ids.

    Raises:
        UserError: there are none.
    """
    src, part = Path(options.src), PARTS[options.part]
    if not src.exists():
        raise UserError(f"{src}: no such file or folder. Set --src to the annotations of {options.part}.")
    if src.is_file():
        companions = part.companions(src) if options.format == "published" else []
        return Selection([src], companions=[path for path in companions if path.is_file()])
    if options.format == "pmd":
        return select_files(src, options.part, is_pmd, lambda selection: None, lambda path: [], all_splits=False)
    every_split = not part.has_splits or (all_splits and options.part == "coco")
    return select_files(src, options.part, part.matches, part.prefer, part.companions, every_split)


def _reader(options: PmdOptions) -> AnnotationReader:
    if options.format == "pmd":
        return partial(read_pmd_records, part=options.part)
    return partial(read_visual_genome, crop=True) if options.regions == "crop" else PARTS[options.part].reader


def _other_format(options: PmdOptions, path: Path, problem: str) -> UserError:
    publisher = "facebook/pmd" if options.format == "pmd" else options.part
    return UserError(
        f"{path} is not in the format of {publisher} or is truncated ({problem}). Check --part and --format, or "
        "download the file again."
    )


def _manifest(part: str, selection: Selection, state: State) -> dict[str, Any]:
    counts = dict(state["counts"])
    mean = counts.pop("words") / max(1, counts["pairs"])
    paper = {"pairs_millions": PARTS[part].pairs, "mean_caption_words": PARTS[part].words}
    return {
        "kind": "pmd",
        "input": state["input"],
        "files": {
            "read": [path.name for path in (*selection.read, *selection.companions)],
            "left": {path.name: reason for path, reason in selection.left.items()},
        },
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
    parser.add_argument(
        "--exclude",
        nargs="+",
        action="extend",
        default=[],
        type=file_path,
        metavar="FILE",
        help="Karpathy's dataset_coco.json or dataset_flickr30k.json, whose val and test images are left out; 'none' "
        "keeps all images",
    )
    parser.add_argument(
        "--regions",
        choices=REGIONS,
        default=PmdOptions.regions,
        help="records of Visual Genome: whole images, or a crop of each region (default: %(default)s)",
    )
    add_options(parser, PmdOptions.shard)
    parser.set_defaults(run=run_pmd)


def run_pmd(arguments: argparse.Namespace) -> None:
    images = arguments.images or (arguments.src if arguments.src.is_dir() else arguments.src.parent)
    options = PmdOptions(
        arguments.part,
        arguments.src,
        images,
        arguments.format,
        arguments.shard,
        tuple(arguments.exclude),
        arguments.regions,
    )
    manifest = prepare_pmd(arguments.out, options, not arguments.quiet, arguments.executor)
    counts = manifest["counts"]
    print(
        f"{arguments.part}: {counts['pairs']} pairs of {counts['images']} images, "
        f"{manifest['mean_caption_words']} words per caption (paper: {manifest['paper']['pairs_millions']} M pairs, "
        f"{manifest['paper']['mean_caption_words']} words). Dropped: {describe_dropped(manifest)}."
    )
