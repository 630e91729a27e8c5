"""The nine parts of PMD: annotation reader, licence and the statistics of the paper's table 2."""

from dataclasses import dataclass

from mmf_flava.data.prepare import annotations
from mmf_flava.data.prepare.annotations import AnnotationReader


@dataclass(frozen=True)
class PmdPart:
    """A part of PMD. ``pairs`` (millions) and ``words`` (mean per caption) are from table 2 of the paper."""

    reader: AnnotationReader
    files: str  # glob of the annotation files if --src is a folder
    pairs: float
    words: float
    licence: str


PARTS = {
    "coco": PmdPart(
        annotations.read_coco, "*.json", 0.9, 12.4, "annotations CC BY 4.0; images under Flickr's terms of use"
    ),
    "sbu": PmdPart(
        annotations.read_sbu, "*.json", 1.0, 12.1, "captions and images by Flickr users; see the project page"
    ),
    "localized_narratives": PmdPart(
        annotations.read_localized_narratives,
        "*.jsonl",
        1.9,
        13.8,
        "annotations CC BY 4.0; images: see their sources",
    ),
    "conceptual_captions": PmdPart(
        annotations.read_cc3m,
        "*.tsv",
        3.1,
        10.3,
        "free for any purpose with credit to Google; images belong to their owners",
    ),
    "visual_genome": PmdPart(annotations.read_visual_genome, "*.json", 5.4, 5.1, "annotations CC BY 4.0"),
    "wit": PmdPart(annotations.read_wit, "*.tsv.gz", 4.8, 12.8, "CC BY-SA 3.0; images: see Wikimedia Commons"),
    "cc12m": PmdPart(
        annotations.read_cc12m,
        "*.tsv",
        11.0,
        17.3,
        "free for any purpose with credit to Google; images belong to their owners",
    ),
    "redcaps": PmdPart(
        annotations.read_redcaps, "*.json", 11.6, 9.5, "annotations CC BY 4.0, non-commercial by Reddit's terms of use"
    ),
    "yfcc100m": PmdPart(
        annotations.read_yfcc100m,
        "yfcc100m_dataset*",
        30.3,
        12.7,
        "Creative Commons, a licence per photo: see the dataset",
    ),
}
