"""Dataset ``pmd``: image-text pairs, such as the paper's Public Multimodal Datasets (PMD, section 3.5).

A record has an image and its captions. The captions are in the field ``json``, as {"captions": [...]} or
{"caption": "..."}, or in the field ``txt`` (the formats of img2dataset). ``json`` may also have {"label": 3}, for
zero-shot classification. See ``annotations`` for all supported formats.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmf.common.registry import registry

from mmf_flava.config.datasets import PMDConfig
from mmf_flava.data.annotations import TEXT_EXTENSIONS, parse_annotation, parse_label
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.pair_weights import read_pair_weights
from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.data.records import estimate_text_bytes, require_column
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder

logger = logging.getLogger(__name__)

MISMATCH_TRIES = 10  # records sampled to find a different caption for a mismatched pair


class PMDDataset(ImageStreamDataset):
    """Image-text pairs. In training, some pairs are mismatched, as needed for image-text matching.

    Fields: image, image_for_codebook or image_codes, image_patch_mask, input_ids, input_mask, segment_ids,
    input_ids_masked, lm_label_ids, is_correct, captions (all captions of the image), targets (label or -1), sample_id.

    In training, a sample's text is one of the image's captions or, with probability ``mismatch_probability``, a caption
    of another record (is_correct 0). The paper does not state this probability; the default of 0.1 is
    torchmultimodal's value. The other record is sampled from the same shard. With ``length_buckets``, records of
    similar text length are preferred. ``captions`` and ``targets`` always belong to the image. Outside training, every
    pair matches.

    With the image processor ``flava_multicrop``, records need no captions, and a sample has only crops_global,
    crops_local, targets and sample_id.

    Attributes:
        images_only: whether captions are not used.
    """

    def __init__(self, config: PMDConfig, dataset_type: str, paths: Sequence[str | Path]):
        super().__init__("pmd", config, dataset_type, paths)
        self.images_only = config.multicrop
        if not self.images_only:
            require_column(self.records, "caption")
        has_mismatches = self.training and not self.images_only
        self.mismatch_probability = config.mismatch_probability if has_mismatches else 0.0
        self.length_buckets = config.length_buckets
        self._warned = False

    def init_processors(self) -> None:
        """Build the processors. If only the images are used, the tokenizer is not loaded."""
        if self.images_only:
            self.config.processors.text_processor = None
        super().init_processors()

    def caption_bytes(self, n: int) -> int:
        """Return the approximate caption length of sample n in bytes, without reading the record."""
        return estimate_text_bytes(self.records, self.order.index(n))

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records.read(index)
        if self.images_only:
            fields = self._image_fields(record, index, rng)
            return {**fields, "targets": parse_label(record), "sample_id": record.key}
        captions, label = parse_annotation(record)
        text, matches = captions[int(rng.integers(len(captions)))], 1
        if self.mismatch_probability and rng.random() < self.mismatch_probability:
            other = self._other_caption(index, captions, rng)
            if other is not None:
                text, matches = other, 0
        return {
            **self._image_fields(record, index, rng),
            **self.text_processor({"text": text, "text_a": text, "is_correct": matches, "rng": rng}),
            "is_correct": matches,
            "captions": captions,
            "targets": label,
            "sample_id": record.key,
        }

    def _other_caption(self, index: int, captions: list[str], rng: np.random.Generator) -> str | None:
        """Sample a caption of another record that is not one of ``captions``; return None if none was found.

        The record is sampled from the same shard, which the process has open. If the shard has no other caption, as in
        a dataset that is sorted by class, the record comes from another shard, always the same one for each shard.
        """
        for records in self._related_records(index):
            sampled: Iterable[int] = (records[int(rng.integers(len(records)))] for _ in range(MISMATCH_TRIES))
            if self.length_buckets > 1:  # prefer similar lengths: a longer caption would pad the entire batch
                length = estimate_text_bytes(self.records, index)
                sampled = sorted(sampled, key=lambda other: abs(estimate_text_bytes(self.records, other) - length))
            for number in sampled:
                if (other := self._read_caption(number, rng)) is not None and other not in captions:
                    return other
        if not self._warned:
            self._warned = True
            logger.warning(
                "dataset_config.pmd: no other caption was found for the mismatched pair of record %d, so the pair "
                "matches. Shuffle records with equal captions before they are written to shards.",
                index,
            )
        return None

    def _read_caption(self, index: int, rng: np.random.Generator) -> str | None:
        """Return one of the captions of record ``index``, or None if it has none.

        Raises:
            BadRecord: the record cannot be read. Another caption in its place would not be that of an undisturbed run.
        """
        try:
            with record_boundary(f"record {index}"):
                captions, _label = parse_annotation(self.records.read(index, TEXT_EXTENSIONS))
        except BadRecord as error:
            if error.reason is Reason.VANISHED:
                raise
            return None
        return captions[int(rng.integers(len(captions)))]


@registry.register_builder("pmd")
class PMDBuilder(StreamBuilder):
    """Builder of the dataset ``pmd``."""

    NAME = "pmd"
    CONFIG = PMDConfig

    def load_split(self, config: PMDConfig, dataset_type: str) -> StreamDataset | None:
        """Load the dataset of one split. With ``epoch: pairs``, the default weights of paths come from manifests."""
        if dataset_type == "train" and config.epoch == "pairs" and config.splits.weights("train") is None:
            paths = zip(config.splits.paths("train"), self.list_paths(config, "train"), strict=True)
            config = replace(config, splits=replace(config.splits, train=read_pair_weights(paths)))
        return super().load_split(config, dataset_type)

    def open_split(self, config: PMDConfig, dataset_type: str, paths: list[str | Path]) -> PMDDataset:
        return PMDDataset(config, dataset_type, paths)
