"""Sample cards of the HTML page: the inputs and targets of the model for one sample.

Shapes: H, W = height and width of an image in pixels.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from mmf.common.sample import Sample
from PIL import Image

from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.masking import IGNORED
from mmf_flava.data.processors import FlavaTextProcessor
from mmf_flava.data.show.statistics import InvalidRecord
from mmf_flava.data.stream import StreamDataset

SMALL = 96  # pixels: images with a smaller side are scaled without interpolation


@dataclass(frozen=True)
class EmbeddedImage:
    """A square image embedded in the page."""

    source: str  # a data: URL
    side: int

    @property
    def small(self) -> bool:
        return self.side < SMALL


@dataclass(frozen=True)
class DisplayToken:
    """A token of a text, and whether and how it is masked."""

    input_token: str  # token in the masked input of the model
    target_token: str
    masking: str  # "mask", "random" or "kept" for tokens selected for prediction, else ""
    special: bool
    is_continuation: bool  # whether the token continues the previous word


@dataclass(frozen=True)
class PatchCode:
    """The image code of a patch."""

    number: int
    colour: str  # CSS colour, determined by the number


@dataclass(frozen=True)
class SampleCard:
    """Card that shows a sample of a dataset. Fields that the dataset does not have are None or empty."""

    number: int  # position in the stream
    key: str
    replaced_records: list[InvalidRecord]  # invalid records that this sample replaces
    view: EmbeddedImage | None  # input of the image encoder
    grid: tuple[int, int]
    masked: list[int]  # masked patches, row-major
    codebook_view: EmbeddedImage | None  # input of the image codebook
    codes: list[PatchCode]
    crops: list[EmbeddedImage]  # global and local crops for DINO
    tokens: list[DisplayToken]
    matches: bool | None  # whether the caption belongs to the image
    captions: list[str]  # all captions of the image
    label: str | None


def make_card(dataset: StreamDataset, number: int) -> SampleCard:
    """Return the card that shows sample ``number`` of a dataset. Raise UserError if no valid record is found."""
    sample = dataset[number]
    view, codebook_view, grid = None, None, (0, 0)
    crops = [crop for name in ("crops_global", "crops_local") if name in sample for crop in sample[name]]
    if "image" in sample and not crops:
        view, grid = _view(dataset.image_processor.pixels(sample["image"])), dataset.image_processor.grid
    if "image_for_codebook" in sample:
        pixels = sample["image_for_codebook"].permute(1, 2, 0).numpy()
        codebook_view = _view(np.rint(pixels * 255).astype(np.uint8))
    mask = sample.get("image_patch_mask")
    codes = sample.get("image_codes")
    label = sample.get("targets", -1)
    return SampleCard(
        number=number,
        key=sample["sample_id"],
        replaced_records=[
            InvalidRecord(entry["record"], entry["reason"], entry["message"]) for entry in sample["replaced"]
        ],
        view=view,
        grid=grid,
        masked=[] if mask is None else np.flatnonzero(mask.numpy()).tolist(),
        codebook_view=codebook_view,
        codes=[] if codes is None else [PatchCode(code, colour(code)) for code in codes.tolist()],
        crops=[_view(dataset.image_processor.pixels(crop)) for crop in crops],
        tokens=_tokens(sample, dataset.text_processor) if "input_ids" in sample else [],
        matches=bool(sample["is_correct"]) if "is_correct" in sample else None,
        captions=sample.get("captions") or [],
        label=label_name(dataset, label) if label >= 0 else None,
    )


def colour(code: int) -> str:
    """Return a CSS colour for a code. Adjacent codes have distant hues."""
    return f"hsl({code * 137.508 % 360:.0f} {45 + code * 7 % 40}% {38 + code * 11 % 36}%)"


def label_name(dataset: StreamDataset, label: int) -> str:
    """Return the class number and, for image folders, the class name of a label."""
    records = getattr(dataset, "records", None)
    return f"{label} {records.classes[label]}" if isinstance(records, ImageFolder) else str(label)


def _view(pixels_HW3: np.ndarray) -> EmbeddedImage:
    """Encode an image as PNG or JPEG, whichever is smaller."""
    encoded = {}
    for kind, options in (("png", {}), ("jpeg", {"quality": 90})):
        buffer = io.BytesIO()
        Image.fromarray(pixels_HW3).save(buffer, kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = min(encoded, key=lambda kind: len(encoded[kind]))
    return EmbeddedImage(f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}", len(pixels_HW3))


def _tokens(sample: Sample, processor: FlavaTextProcessor) -> list[DisplayToken]:
    special = {processor.special.cls, processor.special.sep, processor.special.pad}
    tokens = []
    columns = (sample[name].tolist() for name in ("input_ids", "input_ids_masked", "lm_label_ids"))
    for target_id, input_id, label in zip(*columns, strict=True):
        masking = ""
        if label != IGNORED:
            masking = "mask" if input_id == processor.special.mask else "random" if input_id != target_id else "kept"
        # some ids of a vocabulary may have no token
        shown, target = (processor.tokenizer.id_to_token(token) or "?" for token in (input_id, target_id))
        tokens.append(DisplayToken(shown, target, masking, target_id in special, target.startswith("##")))
    return tokens
