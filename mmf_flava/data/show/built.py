"""What the builder of a folder of pairs (``data.prepare pmd``) left out, from the manifest beside the shards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError


@dataclass(frozen=True)
class Built:
    """One manifest: ``dropped`` counts rows by reason, ``paper`` has what the paper says of this part."""

    folder: Path
    part: str
    rows: int
    images: int
    pairs: int
    words: float  # mean words a caption
    paper_millions: float
    paper_words: float
    dropped: dict[str, int]
    licence: str


def read_built(paths: Sequence[str | Path]) -> list[Built]:
    """The manifests of the folders that ``paths`` (folders, shards, globs of shards) lie in; each once, in order.

    Raises:
        UserError: a manifest that the builder did not write so.
    """
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in paths if isinstance(path, Path))
    return [built for folder in folders if (built := _read(folder)) is not None]


def _read(folder: Path) -> Built | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.get("kind") != "pmd":
            return None
        counts, paper = content["counts"], content["paper"]
        return Built(
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
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): move it away.") from None
