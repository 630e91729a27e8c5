"""The ``pmd`` dataset: image-text pairs (the paper's Public Multimodal Datasets, section 3.5, or any such shards).

A record has an image and its captions: in ``json`` as {"captions": [...]} or {"caption": "..."}, otherwise in ``txt``
(the formats of img2dataset). ``json`` may also have {"label": 3}, for zero-shot classification.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.schema import check_positive
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.records import estimate_text_bytes
from mmf_flava.data.stream import StreamBuilder
from mmf_flava.errors import UserError

TEXT_EXTENSIONS = ("json", "txt")
MISMATCH_TRIES = 10  # records sampled to find a different caption for a mismatched pair


class PMDDataset(ImageStreamDataset):
    """Image-text pairs with the negatives of image-text matching.

    Fields: image, image_for_codebook or image_codes, image_patch_mask, input_ids, input_mask, input_ids_masked,
    lm_label_ids, is_correct, captions (all captions of the image), targets (label or -1), sample_id.

    In training, a sample's text is one of the image's captions or, with probability ``mismatch_probability``, a caption
    of another record (is_correct 0). The paper gives no rate; 0.1 is torchmultimodal's. With remote shards, the other
    record is sampled from the same shuffle block; with ``length_buckets``, records of similar text length are
    preferred. ``captions`` and ``targets`` always belong to the image. Outside training every pair matches.
    """

    REQUIRED_PROCESSORS = ("image_processor", "text_processor")

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("pmd", config, dataset_type, paths)
        self.mismatch_probability = float(config.get("mismatch_probability", 0.1)) if self.training else 0.0
        if not 0 <= self.mismatch_probability < 1:
            raise UserError(f"mismatch_probability: must be in [0, 1), got {self.mismatch_probability}.")
        self.length_buckets = check_positive(config.get("length_buckets", 1), "dataset_config.pmd.length_buckets")

    def caption_bytes(self, n: int) -> int:
        """Return the approximate caption length of sample n in bytes, without reading the record."""
        return estimate_text_bytes(self.records, self.order.index(n))

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        captions, label = parse_annotation(record)
        text, matches = captions[int(rng.integers(len(captions)))], 1
        if self.mismatch_probability and rng.random() < self.mismatch_probability:
            other = self._other_caption(index, captions, rng)
            if other is not None:
                text, matches = other, 0
        return {
            **self._image_fields(record, index, rng),
            **self.text_processor({"text": text, "rng": rng}),
            "is_correct": matches,
            "captions": captions,
            "targets": label,
            "sample_id": record.key,
        }

    def _other_caption(self, index: int, captions: list[str], rng: np.random.Generator) -> str | None:
        """Sample a caption of another record that is not one of ``captions``; return None if none was found."""
        nearby = self._nearby_records(index)
        sampled: Iterable[int] = (nearby[int(rng.integers(len(nearby)))] for _ in range(MISMATCH_TRIES))
        if self.length_buckets > 1:  # prefer similar lengths: a longer caption would pad the entire batch
            length = estimate_text_bytes(self.records, index)
            sampled = sorted(sampled, key=lambda other: abs(estimate_text_bytes(self.records, other) - length))
        for number in sampled:
            try:
                others, _label = parse_annotation(self.records.read(number, TEXT_EXTENSIONS))
            except BadRecord:
                continue
            other = others[int(rng.integers(len(others)))]
            if other not in captions:
                return other
        return None


def parse_annotation(record: Record) -> tuple[list[str], int]:
    """Return (captions, label or -1) of a record. Raises BadRecord if it has no caption."""
    captions, label = [], -1
    try:
        if "json" in record.fields:
            data = json.loads(record.fields["json"])
            found = data.get("captions") or [data.get("caption")]
            captions = [clean for caption in found if isinstance(caption, str) and (clean := _clean(caption))]
            label = int(data.get("label", -1))
        if not captions and "txt" in record.fields:
            captions = [_clean(record.fields["txt"].decode())]
    except (ValueError, TypeError, AttributeError) as error:
        raise BadRecord(Reason.UNREADABLE_CAPTION, f"{record.key}: unreadable caption ({error})", record.key) from error
    if not captions or not captions[0]:
        raise BadRecord(Reason.NO_CAPTION, f"{record.key}: no caption", record.key)
    return captions, label


def _clean(caption: str) -> str:
    """Remove NULs, lone surrogates (neither can be tokenized or written to files) and surrounding white space."""
    return caption.replace("\0", " ").encode("utf-8", "ignore").decode().strip()


@registry.register_builder("pmd")
class PMDBuilder(StreamBuilder):
    """Builder of ``pmd``.

    Additional keys: ``mismatch_probability``, ``length_buckets``, ``image_dir``, ``views`` and ``codes``.
    """

    NAME = "pmd"

    def open_split(self, config: Any, dataset_type: str, paths: list[str | Path]) -> PMDDataset:
        return PMDDataset(config, dataset_type, paths)
