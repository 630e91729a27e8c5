"""Reading of a run's examples: masked images and sentences with the model's predictions, and attention maps."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.report.values import as_list, as_mapping, as_text, read_json

# punctuation without a space before it, and brackets without a space after them
CLOSING, OPENING = set(".,;:!?)]}%'"), set("([{")
ATTENTION = "attention.json"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ExampleImage:
    """An image, its masked version and the version with predicted patches, as ``data:`` URLs; None if missing."""

    kind: str  # "mim": predicted from the image, "mmm": predicted from image and caption
    original: str | None
    masked: str | None
    filled: str | None
    caption: str | None


@dataclass(frozen=True)
class Token:
    """A WordPiece token of a sentence."""

    text: str  # true token without the prefix ##
    spaced: bool  # whether a space precedes the token
    masked: bool
    guess: str | None
    correct: bool


@dataclass(frozen=True)
class Sentence:
    """A masked sentence with predictions."""

    kind: str  # "mlm": predicted from the text, "mmm": predicted from text and image
    image: str | None  # as a data: URL
    tokens: list[Token]


@dataclass(frozen=True)
class AttentionMaps:
    """An image and the attention of [CLS] to its patches, as ``data:`` URLs."""

    image: str | None
    mean: str | None  # mean over the heads
    heads: list[str]


@dataclass(frozen=True)
class Examples:
    """All examples of a run."""

    images: list[ExampleImage]
    sentences: list[Sentence]
    attention: list[AttentionMaps] = field(default_factory=list)


def read_examples(path: Path) -> Examples:
    """Return the images and sentences in examples.json, and the attention maps in attention.json of the same folder.

    Each is empty if its file is missing or invalid.
    """
    content = read_json(path) or {}
    folder = path.parent
    images = [_parse_image(as_mapping(entry), folder) for entry in as_list(content.get("images"))]
    sentences = [_parse_sentence(as_mapping(entry), folder) for entry in as_list(content.get("sentences"))]
    return Examples(
        images=[image for image in images if image.original or image.masked or image.filled],
        sentences=[sentence for sentence in sentences if sentence.tokens],
        attention=_read_attention(path.with_name(ATTENTION)),
    )


def _read_attention(path: Path) -> list[AttentionMaps]:
    entries = map(as_mapping, as_list((read_json(path) or {}).get("images")))
    maps = [
        AttentionMaps(
            image=_data_url(entry.get("image"), path.parent),
            mean=_data_url(entry.get("mean"), path.parent),
            heads=[url for name in as_list(entry.get("heads")) if (url := _data_url(name, path.parent))],
        )
        for entry in entries
    ]
    return [entry for entry in maps if entry.image and entry.mean]


def _parse_image(entry: dict[str, Any], folder: Path) -> ExampleImage:
    return ExampleImage(
        kind=as_text(entry.get("kind")) or "mim",
        original=_data_url(entry.get("original"), folder),
        masked=_data_url(entry.get("masked"), folder),
        filled=_data_url(entry.get("filled"), folder),
        caption=as_text(entry.get("caption")),
    )


def _parse_sentence(entry: dict[str, Any], folder: Path) -> Sentence:
    tokens: list[Token] = []
    for token in map(as_mapping, as_list(entry.get("tokens"))):
        text, guess = as_text(token.get("text")), as_text(token.get("guess"))
        if text is None:
            continue
        continues_word = text.startswith("##") and len(text) > 2
        spaced = bool(tokens) and not continues_word and text not in CLOSING and tokens[-1].text not in OPENING
        tokens.append(
            Token(
                text=text[2:] if continues_word else text,
                spaced=spaced,
                masked=token.get("masked") is True,
                guess=guess,
                correct=guess is not None and token.get("right") is True,
            )
        )
    return Sentence(as_text(entry.get("kind")) or "mlm", _data_url(entry.get("image"), folder), tokens)


def _data_url(name: Any, folder: Path) -> str | None:
    """Return a PNG file of the examples folder as a ``data:`` URL, so that the page is self-contained."""
    if not isinstance(name, str) or "\0" in name:
        return None
    path = (folder / name).resolve()
    # security: a run folder may be untrusted, and the page may be shared, so files outside the folder are not included
    if not path.is_relative_to(folder.resolve()):
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if content.startswith(PNG) else None
