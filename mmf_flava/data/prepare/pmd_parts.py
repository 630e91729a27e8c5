"""The nine parts of PMD: how to find and read their annotations, licences, and the numbers of the paper's table 2."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmf_flava.data.prepare import file_checks
from mmf_flava.data.prepare.annotations import AnnotationReader
from mmf_flava.data.prepare.coco_parts import narratives_source, read_coco, read_localized_narratives
from mmf_flava.data.prepare.part_files import Companions, Matches, Prefer, Selection, plain_name
from mmf_flava.data.prepare.visual_genome import find_image_data, read_visual_genome
from mmf_flava.data.prepare.web_parts import read_cc3m, read_cc12m, read_redcaps, read_sbu, read_wit, sbu_text_files
from mmf_flava.data.prepare.yfcc import is_database, read_yfcc100m

SHARD_NUMBER = re.compile(r"-\d+(\.\w+)?$")


def _same_files(selection: Selection) -> None:
    """Prefer nothing."""


def _no_companions(path: Path) -> list[Path]:
    return []


def _sbu_captions(path: Path) -> list[Path]:
    return [captions] if (captions := sbu_text_files(path)[1]) != path else []


def _image_data(path: Path) -> list[Path]:
    listed = find_image_data(path)
    return [] if listed is None else [listed]


def _prefer_karpathy(selection: Selection) -> None:
    """Karpathy's file has the captions of all others; the releases of 2014 and 2017 have the same captions."""
    karpathy = [path for path in selection.read if file_checks.is_karpathy_coco(path)]
    of_2014 = [path for path in selection.read if "2014" in path.name]
    if karpathy:
        selection.leave(
            [path for path in selection.read if path not in karpathy[:1]], f"the same as {karpathy[0].name}"
        )
    elif of_2014:
        selection.leave([path for path in selection.read if "2017" in path.name], "the same as the files of 2014")


def _prefer_sbu_json(selection: Selection) -> None:
    texts = [path for path in selection.read if path.name.endswith(".txt")]
    if len(texts) < len(selection.read):
        selection.leave(texts, "the same as the JSON file")


def _prefer_narratives(selection: Selection) -> None:
    """Localized Narratives are also published as captions only, "coco_train_captions.jsonl"."""
    complete = {narratives_source(path.name) for path in selection.read if "localized_narratives" in path.name.lower()}
    others = [path for path in selection.read if "localized_narratives" not in path.name.lower()]
    repeated = [path for path in others if narratives_source(path.name) in complete - {""}]
    selection.leave(repeated, "the same as the files with localized_narratives in their name")


def _prefer_yfcc_text(selection: Selection) -> None:
    """The database, the file and its ten shards have the same rows."""
    databases = [path for path in selection.read if is_database(path)]
    shards = [path for path in selection.read if SHARD_NUMBER.search(plain_name(path.name))]
    whole = [path for path in selection.read if path not in databases and path not in shards]
    if whole:
        selection.leave(shards, f"the same as {whole[0].name}")
    if whole or shards:
        selection.leave(databases, f"the same as {(whole or shards)[0].name}")


@dataclass(frozen=True)
class PmdPart:
    """A part of PMD. ``pairs`` (millions) and ``words`` (mean per caption) are from table 2 of the paper.

    Attributes:
        matches: function that returns whether a file of a folder contains annotations of the part.
        has_splits: whether annotations of val and test are published too.
        prefer: function that leaves files with the same images as others.
        companions: function that returns the files that are read with a file.
        evaluation: evaluation sets whose images the part contains.
    """

    reader: AnnotationReader
    matches: Matches
    pairs: float
    words: float
    licence: str
    has_splits: bool = True
    prefer: Prefer = _same_files
    companions: Companions = _no_companions
    evaluation: tuple[str, ...] = ()


GOOGLE = "free for any purpose with credit to Google; images belong to their owners"
PARTS = {
    "coco": PmdPart(
        read_coco,
        file_checks.is_coco,
        0.9,
        12.4,
        "annotations CC BY 4.0; images under Flickr's terms of use",
        prefer=_prefer_karpathy,
        evaluation=("coco",),
    ),
    "sbu": PmdPart(
        read_sbu,
        file_checks.is_sbu,
        1.0,
        12.1,
        "captions and images by Flickr users; see the project page",
        has_splits=False,
        prefer=_prefer_sbu_json,
        companions=_sbu_captions,
    ),
    "localized_narratives": PmdPart(
        read_localized_narratives,
        file_checks.is_localized_narratives,
        1.9,
        13.8,
        "annotations CC BY 4.0; images: see their sources",
        prefer=_prefer_narratives,
        evaluation=("coco", "flickr30k"),
    ),
    "conceptual_captions": PmdPart(read_cc3m, file_checks.is_cc3m, 3.1, 10.3, GOOGLE),
    "visual_genome": PmdPart(
        read_visual_genome,
        file_checks.is_visual_genome,
        5.4,
        5.1,
        "annotations CC BY 4.0",
        has_splits=False,
        companions=_image_data,
        evaluation=("coco",),
    ),
    "wit": PmdPart(read_wit, file_checks.is_wit, 4.8, 12.8, "CC BY-SA 3.0; images: see Wikimedia Commons"),
    "cc12m": PmdPart(read_cc12m, file_checks.is_cc12m, 11.0, 17.3, GOOGLE),
    "redcaps": PmdPart(
        read_redcaps,
        file_checks.is_redcaps,
        11.6,
        9.5,
        "annotations CC BY 4.0, non-commercial by Reddit's terms of use",
        has_splits=False,
    ),
    "yfcc100m": PmdPart(
        read_yfcc100m,
        file_checks.is_yfcc100m,
        30.3,
        12.7,
        "Creative Commons, a licence per photo: see the dataset",
        has_splits=False,
        prefer=_prefer_yfcc_text,
    ),
}


def evaluation_sets(part: str, files: list[Path]) -> set[str]:
    """Return the evaluation sets whose images a part contains, as far as the beginnings of its files show."""
    if part != "localized_narratives":
        return set(PARTS[part].evaluation)
    sources = {
        narratives_source(path.name) or narratives_source(file_checks.narratives_dataset(path)) for path in files
    }
    return sources & set(PARTS[part].evaluation)
