"""``pmd``: image-text pairs (the paper's Public Multimodal Datasets, section 3.5), or any shards of pairs.

A record holds an image and its captions: in ``json`` as {"captions": [...]} or {"caption": "..."}, else in ``txt``
(img2dataset writes all of these). ``json`` may also hold {"label": 3}, for zero-shot classification.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.schema import positive
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.data.records import text_bytes
from mmf_flava.data.stream import StreamBuilder
from mmf_flava.errors import UserError

TEXT_PARTS = ("json", "txt")
TRIES = 10  # at finding a record that has another caption, for a mismatched pair


class PMDDataset(ImageStreamDataset):
    """Pairs: fields image, image_for_codebook or image_codes, image_patch_mask, input_ids, input_mask,
    input_ids_masked, lm_label_ids, is_correct, captions (all of the image's), targets (label or -1), sample_id.

    In training each sample shows one of the image's captions, or, with probability ``mismatch_probability``, a caption
    of another record (is_correct 0), the negatives of image-text matching; the paper gives no rate, 0.1 is
    torchmultimodal's. The other record is one of the same block where shards are remote, and one with a text of similar
    length where there are ``length_buckets``. ``captions`` and ``targets`` are always the image's own. Outside training
    every pair matches.
    """

    NEEDS = ("image_processor", "text_processor")

    def __init__(self, config: Any, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("pmd", config, dataset_type, paths)
        self.mismatch_probability = float(config.get("mismatch_probability", 0.1)) if self.training else 0.0
        if not 0 <= self.mismatch_probability < 1:
            raise UserError(f"mismatch_probability is {self.mismatch_probability}; it must be in [0, 1).")
        self.length_buckets = positive(config.get("length_buckets", 1), "dataset_config.pmd.length_buckets")

    def caption_bytes(self, n: int) -> int:
        """About how long the caption of sample n is, without reading it."""
        return text_bytes(self.records, self.order.index(n))

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        captions, label = describe(record)
        text, matches = captions[int(rng.integers(len(captions)))], 1
        if self.mismatch_probability and rng.random() < self.mismatch_probability:
            other = self._other_caption(index, captions, rng)
            if other is not None:
                text, matches = other, 0
        return {
            **self._image(record, index, rng),
            **self.text_processor({"text": text, "rng": rng}),
            "is_correct": matches,
            "captions": captions,
            "targets": label,
            "sample_id": record.key,
        }

    def _other_caption(self, index: int, captions: list[str], rng: np.random.Generator) -> str | None:
        """A caption of another record that is not one of ``captions``; None where none was found."""
        near = self._near(index)
        drawn: Iterable[int] = (near[int(rng.integers(len(near)))] for _ in range(TRIES))
        if self.length_buckets > 1:  # one of similar length: a longer one would pad the whole batch
            own = text_bytes(self.records, index)
            drawn = sorted(drawn, key=lambda other: abs(text_bytes(self.records, other) - own))
        for number in drawn:
            try:
                others, _label = describe(self.records.read(number, TEXT_PARTS))
            except BadRecord:
                continue
            other = others[int(rng.integers(len(others)))]
            if other not in captions:
                return other
        return None


def describe(record: Record) -> tuple[list[str], int]:
    """(captions, label or -1) of a record; BadRecord when it has no caption."""
    captions, label = [], -1
    try:
        if "json" in record.parts:
            data = json.loads(record.parts["json"])
            found = data.get("captions") or [data.get("caption")]
            captions = [clean for caption in found if isinstance(caption, str) and (clean := _printable(caption))]
            label = int(data.get("label", -1))
        if not captions and "txt" in record.parts:
            captions = [_printable(record.parts["txt"].decode())]
    except (ValueError, TypeError, AttributeError) as error:
        raise BadRecord(
            Reason.UNREADABLE_CAPTION, f"{record.key}: unreadable description ({error})", record.key
        ) from error
    if not captions or not captions[0]:
        raise BadRecord(Reason.NO_CAPTION, f"{record.key}: no caption", record.key)
    return captions, label


def _printable(caption: str) -> str:
    """Without NULs and lone surrogates, which no tokenizer and no file of ours could take, and white space around."""
    return caption.replace("\0", " ").encode("utf-8", "ignore").decode().strip()


@registry.register_builder("pmd")
class PMDBuilder(StreamBuilder):
    """Builds ``pmd``; more keys: ``mismatch_probability``, ``length_buckets``, ``image_dir``, ``views``, ``codes``."""

    NAME = "pmd"

    def open(self, config: Any, dataset_type: str, paths: list[str | Path]) -> PMDDataset:
        return PMDDataset(config, dataset_type, paths)
