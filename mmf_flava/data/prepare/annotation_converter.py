"""Conversion of annotations and their images to records of shards."""

import json
import re
from functools import cached_property
from pathlib import Path

from mmf_flava.data.names import extension_of
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.caption_rules import count_words
from mmf_flava.data.prepare.evaluation_images import EVALUATION_IDS, HELD_OUT, EvaluationImages, require_split_files
from mmf_flava.data.prepare.image_source import ImageSource
from mmf_flava.data.prepare.imagenet import SIGNATURES
from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.shard_preparation import RowResult
from mmf_flava.data.prepare.visual_genome import RegionCropper
from mmf_flava.data.record import IMAGE_EXTENSIONS, Reason
from mmf_flava.errors import join_first


class AnnotationConverter:
    """Converts annotations to records. The index of the images is written when the first image is looked up.

    Args:
        part: one of ``PARTS``.
        images: img2dataset's output or a folder of image files.
        database: path of the index of the images.
        evaluation: images to leave out.
        keeps_all: whether images of evaluation sets without a split file are kept, instead of raising an error.
    """

    def __init__(self, part: str, images: Path, database: Path, evaluation: EvaluationImages, keeps_all: bool):
        self.part, self.images, self.database, self.evaluation = part, images, database, evaluation
        self._sets = {} if keeps_all else {EVALUATION_IDS[name]: name for name in PARTS[part].evaluation}
        self._cropper = RegionCropper()

    @cached_property
    def source(self) -> ImageSource:
        return ImageSource(self.images, self.database)

    def convert(self, annotation: Annotation) -> RowResult:
        """Return the record of an annotation, or the reason why it is dropped.

        Raises:
            UserError: the annotation is of an evaluation set whose split file is missing, or there are no images.
            BadRecord: the image cannot be read, or it cannot be decoded to crop a region.
        """
        if annotation.bad is not None:
            return RowResult(bad=annotation.bad)
        if annotation.dropped:
            return RowResult(dropped=annotation.dropped)
        if not annotation.ids.isdisjoint(self.evaluation.ids):
            return RowResult(dropped=HELD_OUT)
        require_split_files(
            self.part, {self._sets.get(name.partition(":")[0], "") for name in annotation.ids}, self.evaluation
        )
        image = annotation.image or self.source.read(annotation)
        if image is None:
            return RowResult(dropped=Reason.NO_IMAGE, unmatched=self._describe_missing(annotation))
        extension, data = _extension(*image), image[1]
        if annotation.region is not None:
            cropped = self._cropper.crop(data, annotation.region, join_first(list(annotation.names)))
            if isinstance(cropped, str):
                return RowResult(dropped=cropped, unmatched=f"{annotation.region} of {annotation.names[0]}")
            extension, data = "jpg", cropped
        captions = annotation.captions
        metadata = {"captions": captions, "source": self.part, "url": annotation.url}
        counts = {"images": 1, "pairs": len(captions), "words": sum(map(count_words, captions))}
        return RowResult({extension: data, "json": json.dumps(metadata).encode()}, counts)

    def _describe_missing(self, annotation: Annotation) -> str:
        keys = join_first([key for key in (annotation.url, *annotation.names) if key])
        return f"looked for {keys}, but {self.source.examples}" if keys else "the row names no image"


def _extension(name: str, data: bytes) -> str:
    """Return the extension in a file name or an extension; if it is none of an image, that of the content."""
    extension = extension_of(f".{name}")
    if extension in IMAGE_EXTENSIONS:
        return extension
    return next((found for found, start in SIGNATURES.items() if re.match(start, data, re.DOTALL)), IMAGE_EXTENSIONS[0])
