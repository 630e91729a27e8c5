"""Samples of the stream as cards of the page: what the model sees of each, and what is hidden from it.

Shapes: H, W pixels of a view · P patches · T tokens.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from mmf.common.sample import Sample
from PIL import Image

from mmf_flava.data.masking import IGNORED
from mmf_flava.data.processors import FlavaTextProcessor
from mmf_flava.data.records import ImageFolder
from mmf_flava.data.show.statistics import Bad
from mmf_flava.data.stream import StreamDataset

SMALL = 96  # pixels a side: smaller views are shown with hard edges, as enlarging would blur them


@dataclass(frozen=True)
class View:
    """An image of the page."""

    source: str  # a data: address
    side: int

    @property
    def small(self) -> bool:
        return self.side < SMALL


@dataclass(frozen=True)
class Token:
    """One token of a text."""

    seen: str  # what the masked input holds
    truth: str
    fate: str  # "mask", "random" or "kept" for tokens that the model has to name, else ""
    special: bool
    joined: bool  # goes on with the word before it


@dataclass(frozen=True)
class Code:
    """The codebook's entry of one patch."""

    number: int
    colour: str  # the same number has the same colour everywhere


@dataclass(frozen=True)
class Card:
    """One sample; what its dataset does not have is None or empty."""

    number: int  # position in the stream
    key: str
    passed_over: list[Bad]  # in whose place it stands
    view: View | None
    grid: tuple[int, int]
    masked: list[int]  # patches, row by row
    codebook_view: View | None
    codes: list[Code]
    tokens: list[Token]
    matches: bool | None
    captions: list[str]  # all of the image's own
    label: str | None


def make_card(dataset: StreamDataset, number: int) -> Card:
    """The card of ``dataset[number]``; UserError where no usable record is found."""
    sample = dataset[number]
    view, codebook_view, grid = None, None, (0, 0)
    if "image" in sample:
        view, grid = _view(dataset.image_processor.pixels(sample["image"])), dataset.image_processor.grid
    if "image_for_codebook" in sample:
        pixels = sample["image_for_codebook"].permute(1, 2, 0).numpy()
        codebook_view = _view(np.rint(pixels * 255).astype(np.uint8))
    mask = sample.get("image_patch_mask")
    codes = sample.get("image_codes")
    label = sample.get("targets", -1)
    return Card(
        number=number,
        key=sample["sample_id"],
        passed_over=[Bad(entry["record"], entry["reason"], entry["message"]) for entry in sample["replaced"]],
        view=view,
        grid=grid,
        masked=[] if mask is None else np.flatnonzero(mask.numpy()).tolist(),
        codebook_view=codebook_view,
        codes=[] if codes is None else [Code(code, colour(code)) for code in codes.tolist()],
        tokens=_tokens(sample, dataset.text_processor) if "input_ids" in sample else [],
        matches=bool(sample["is_correct"]) if "is_correct" in sample else None,
        captions=sample.get("captions") or [],
        label=label_name(dataset, label) if label >= 0 else None,
    )


def colour(code: int) -> str:
    """A colour for a codebook entry; neighbouring numbers get hues far apart."""
    return f"hsl({code * 137.508 % 360:.0f} {45 + code * 7 % 40}% {38 + code * 11 % 36}%)"


def label_name(dataset: StreamDataset, label: int) -> str:
    """A label with the name of its class, where the records come from class folders."""
    records = getattr(dataset, "records", None)
    return f"{label} {records.classes[label]}" if isinstance(records, ImageFolder) else str(label)


def _view(pixels_HW3: np.ndarray) -> View:
    """The smaller of PNG, which suits scans and drawings, and JPEG, which suits photographs."""
    found = {}
    for kind, options in (("png", {}), ("jpeg", {"quality": 90})):
        buffer = io.BytesIO()
        Image.fromarray(pixels_HW3).save(buffer, kind, **options)
        found[kind] = buffer.getvalue()
    kind = min(found, key=lambda kind: len(found[kind]))
    return View(f"data:image/{kind};base64,{base64.b64encode(found[kind]).decode()}", len(pixels_HW3))


def _tokens(sample: Sample, processor: FlavaTextProcessor) -> list[Token]:
    special = {processor.special.cls, processor.special.sep, processor.special.pad}
    tokens = []
    columns = (sample[name].tolist() for name in ("input_ids", "input_ids_masked", "lm_label_ids"))
    for true_id, seen_id, label in zip(*columns, strict=True):
        fate = ""
        if label != IGNORED:
            fate = "mask" if seen_id == processor.special.mask else "random" if seen_id != true_id else "kept"
        # a vocabulary may leave out an id
        seen, truth = (processor.tokenizer.id_to_token(token) or "?" for token in (seen_id, true_id))
        tokens.append(Token(seen, truth, fate, true_id in special, truth.startswith("##")))
    return tokens
