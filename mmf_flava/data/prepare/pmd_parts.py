"""The nine parts of PMD: how each is read, its licence, and what the paper's table 2 says it holds."""

from dataclasses import dataclass

from mmf_flava.data.prepare import published
from mmf_flava.data.prepare.published import Reader


@dataclass(frozen=True)
class Part:
    """A part of PMD. ``pairs`` (millions) and ``words`` (mean a caption) are the paper's (table 2)."""

    reader: Reader
    files: str  # the annotation files that are looked for where --src is a folder
    pairs: float
    words: float
    licence: str


PARTS = {
    "coco": Part(published.read_coco, "*.json", 0.9, 12.4, "annotations CC BY 4.0; images under Flickr's terms of use"),
    "sbu": Part(published.read_sbu, "*.json", 1.0, 12.1, "captions and images by Flickr users; see the project page"),
    "localized_narratives": Part(
        published.read_localized_narratives, "*.jsonl", 1.9, 13.8, "annotations CC BY 4.0; images as their sources say"
    ),
    "conceptual_captions": Part(
        published.read_cc3m, "*.tsv", 3.1, 10.3, "free for any purpose with credit to Google; images are their owners'"
    ),
    "visual_genome": Part(published.read_visual_genome, "*.json", 5.4, 5.1, "annotations CC BY 4.0"),
    "wit": Part(published.read_wit, "*.tsv.gz", 4.8, 12.8, "CC BY-SA 3.0; images as Wikimedia Commons says of each"),
    "cc12m": Part(
        published.read_cc12m,
        "*.tsv",
        11.0,
        17.3,
        "free for any purpose with credit to Google; images are their owners'",
    ),
    "redcaps": Part(
        published.read_redcaps, "*.json", 11.6, 9.5, "annotations CC BY 4.0, non-commercial by Reddit's terms of use"
    ),
    "yfcc100m": Part(
        published.read_yfcc100m, "yfcc100m_dataset*", 30.3, 12.7, "Creative Commons, each photo's own: see the dataset"
    ),
}
