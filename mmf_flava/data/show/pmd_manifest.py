"""Reader of the manifests that ``python -m mmf_flava.data.prepare pmd`` writes next to its shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.files.json_data import read_object


@dataclass(frozen=True)
class PmdManifest:
    """Manifest of one prepared PMD part.

    Attributes:
        dropped: reason -> number of dropped rows.
        paper_millions, paper_words: image-text pairs in millions, and words per caption, in the FLAVA paper.
    """

    folder: Path
    part: str
    rows: int
    images: int
    pairs: int
    words: float  # mean number of words per caption
    paper_millions: float
    paper_words: float
    dropped: dict[str, int]
    licence: str


def read_manifests(paths: Sequence[str | Path]) -> list[PmdManifest]:
    """Return the manifests of the folders of ``paths`` (folders, shards or globs), in order and without duplicates.

    Raises:
        UserError: a manifest is invalid.
    """
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in paths if isinstance(path, Path))
    return [manifest for folder in folders if (manifest := _read(folder)) is not None]


def _read(folder: Path) -> PmdManifest | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        content = read_object(path)
        if content.get("kind") != "pmd":
            return None
        counts, paper = content["counts"], content["paper"]
        return PmdManifest(
            folder=folder,
            part=str(content["input"]["part"]),
            rows=int(counts["rows"]),
            images=int(counts["images"]),
            pairs=int(counts["pairs"]),
            words=float(content["mean_caption_words"]),
            paper_millions=float(paper["pairs_millions"]),
            paper_words=float(paper["mean_caption_words"]),
            dropped={str(reason): int(count) for reason, count in content["dropped"].items()},
            licence=str(content["licence"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a valid manifest ({type(error).__name__}: {error}). Move or delete it."
        ) from None
