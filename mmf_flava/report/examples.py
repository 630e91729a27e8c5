"""The examples of a run: masked images and sentences, with what the model filled in."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmf_flava.report.values import mapping, read_json, sequence, text

CLOSING, OPENING = set(".,;:!?)]}%'"), set("([{")  # no space before the former, none after the latter
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One image three times, as ``data:`` addresses; None where its PNG is missing."""

    kind: str  # "mim" from the image alone, "mmm" with the caption in view
    original: str | None
    masked: str | None
    filled: str | None
    caption: str | None


@dataclass(frozen=True)
class Piece:
    """One WordPiece token of a sentence."""

    text: str  # the truth, without the ## of a continued word
    spaced: bool  # begins after a space
    masked: bool
    guess: str | None
    right: bool


@dataclass(frozen=True)
class Sentence:
    kind: str  # "mlm" from the text alone, "mmm" with the image in view
    image: str | None  # as a data: address
    pieces: list[Piece]


@dataclass(frozen=True)
class Examples:
    pictures: list[Picture]
    sentences: list[Sentence]


def read_examples(path: Path) -> Examples:
    """Reads examples.json and the PNG files beside it; empty where there is nothing to read."""
    content = read_json(path) or {}
    folder = path.parent
    pictures = [_picture(mapping(entry), folder) for entry in sequence(content.get("images"))]
    sentences = [_sentence(mapping(entry), folder) for entry in sequence(content.get("sentences"))]
    return Examples(
        pictures=[picture for picture in pictures if picture.original or picture.masked or picture.filled],
        sentences=[sentence for sentence in sentences if sentence.pieces],
    )


def _picture(entry: dict[str, Any], folder: Path) -> Picture:
    return Picture(
        kind=text(entry.get("kind")) or "mim",
        original=_embedded(entry.get("original"), folder),
        masked=_embedded(entry.get("masked"), folder),
        filled=_embedded(entry.get("filled"), folder),
        caption=text(entry.get("caption")),
    )


def _sentence(entry: dict[str, Any], folder: Path) -> Sentence:
    pieces: list[Piece] = []
    for token in map(mapping, sequence(entry.get("tokens"))):
        word, guess = text(token.get("text")), text(token.get("guess"))
        if word is None:
            continue
        joined = word.startswith("##") and len(word) > 2
        apart = bool(pieces) and not joined and word not in CLOSING and pieces[-1].text not in OPENING
        pieces.append(
            Piece(
                text=word[2:] if joined else word,
                spaced=apart,
                masked=token.get("masked") is True,
                guess=guess,
                right=guess is not None and token.get("right") is True,
            )
        )
    return Sentence(text(entry.get("kind")) or "mlm", _embedded(entry.get("image"), folder), pieces)


def _embedded(name: Any, folder: Path) -> str | None:
    """A PNG of the examples folder as a ``data:`` address; the page must show without any file beside it."""
    if not isinstance(name, str) or "\0" in name:
        return None
    place = (folder / name).resolve()
    # a run folder may come from somebody else: nothing outside it is copied into a page that is passed on
    if not place.is_relative_to(folder.resolve()):
        return None
    try:
        content = place.read_bytes()
    except OSError:
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if content.startswith(PNG) else None
