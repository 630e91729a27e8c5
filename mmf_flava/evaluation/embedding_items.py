"""The items that ``mmf_flava.embed`` computes embeddings of: images, captions or both of records, or lines of text."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mmf_flava.data.annotations import TEXT_EXTENSIONS, clean_text, parse_annotation
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.record import BadRecord, Record, Records, record_boundary
from mmf_flava.data.records import open_records
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import Embedder

KINDS = ("image", "text", "multimodal")
CAPTION_PROBES = 100  # number of records that are searched for a caption, to select the kinds of embeddings


class RecordDataset(Dataset):
    """Dataset of images, captions or both: an item is (record number, id, image tensor or None, caption or None).

    The item of a bad record is the BadRecord.
    """

    def __init__(self, records: Records, embedder: Embedder, kinds: Sequence[str]) -> None:
        self.records, self.processor = records, embedder.image_processor
        self.needs_image = kinds != ["text"]
        self.needs_caption = kinds != ["image"]
        self.text_processor = embedder.text_processor if self.needs_caption else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[int, str, Tensor | None, str | None] | BadRecord:
        try:
            with record_boundary(f"record {index}"):
                record = self.records.read(index)
                with record_boundary(record.key):
                    caption = None
                    if self.text_processor is not None:
                        caption = parse_annotation(record)[0][0]
                        self.text_processor.encode([caption])  # a text that cannot be tokenized costs only this record
                    return index, record.key, self._preprocess(record) if self.needs_image else None, caption
        except BadRecord as error:
            return error

    def _preprocess(self, record: Record) -> Tensor:
        image = decode_image(record, max_pixels=self.processor.max_pixels)
        return self.processor({"image": image, "rng": np.random.default_rng(0), "train": False})["image"]


class LineDataset(Dataset):
    """Dataset of the non-empty lines of a text file: an item is (item number, "line N", None, text)."""

    def __init__(self, path: Path) -> None:
        try:
            lines = read_lines(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: failed to read the file as UTF-8 text ({error}). Check the path.") from error
        texts = [(number, clean_text(line)) for number, line in enumerate(lines, 1)]
        self.lines = [(number, text) for number, text in texts if text]
        if not self.lines:
            raise UserError(f"{path} has no text. Write one text per line.")

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> tuple[int, str, None, str]:
        number, line = self.lines[index]
        return index, f"line {number}", None, line


def open_items(
    embedder: Embedder, source: str, kinds: Sequence[str], columns: Mapping[str, Any] | None = None
) -> tuple[RecordDataset | LineDataset, list[str]]:
    """Open a source; return its dataset and the kinds of embeddings to compute."""
    path = Path(source).expanduser()
    if path.suffix.lower() == ".txt":
        if any(kind != "text" for kind in kinds):
            raise UserError(f"--what: {source} contains only texts. Set --what text.")
        return LineDataset(path), ["text"]
    records = open_records(
        source if "://" in source else path, columns=columns, images_required=list(kinds) != ["text"]
    )
    kinds = list(kinds) or (list(KINDS) if _have_captions(records) else ["image"])
    return RecordDataset(records, embedder, kinds), kinds


def _have_captions(records: Records) -> bool:
    """Return whether one of the first records has a caption. Bad records are ignored."""
    for index in range(min(len(records), CAPTION_PROBES)):
        with suppress(BadRecord), record_boundary(f"record {index}"):
            return bool(parse_annotation(records.read(index, TEXT_EXTENSIONS))[0])
    return False
