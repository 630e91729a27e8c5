"""Config classes of the datasets, one for each config section ``dataset_config.NAME``.

Each dataset builder in ``mmf_flava.data`` has one of these classes, or of those in ``labelled_datasets``, as attribute
``CONFIG``. The YAML files in projects/flava/configs/datasets set the folders and processors of the datasets.
"""

from dataclasses import dataclass, field
from typing import Any

from mmf_flava.config.dataset_base import (
    BOTH,
    FLAVA_IMAGE,
    IMAGE,
    TEXT,
    DatasetConfig,
    RecordsConfig,
    StreamConfig,
)
from mmf_flava.config.labelled_datasets import (
    ImageClassificationConfig,
    ImageTextClassificationConfig,
    check_classes,
)
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import PROCESSORS
from mmf_flava.config.ranges import ranged
from mmf_flava.config.splits import SPLITS
from mmf_flava.errors import UserError

MULTICROP = "flava_multicrop"


@dataclass
class ImageStreamConfig(RecordsConfig):
    """Config keys of the image datasets for pretraining."""

    IMAGE_TYPES = (*FLAVA_IMAGE, MULTICROP)

    # number of fixed random crops of each image, one of which is chosen at random for each training sample; null: every
    # training sample is a new random crop
    views: int | None = ranged(None, at_least=1)
    # image codes written by mmf_flava.cache_codes: a path, or a name in data_dir/codes; null: no cached codes
    codes: str | None = None

    @property
    def multicrop(self) -> bool:
        """Whether the samples are crops for DINO."""
        return (self.processors.get("image_processor") or {}).get("type") == MULTICROP

    def check(self, where: str) -> None:
        super().check(where)
        for key in ("views", "codes"):
            if self.multicrop and getattr(self, key) is not None:
                raise UserError(f"{where}.{key} is not supported by the image_processor {MULTICROP}. Remove it.")

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        """Raise UserError if the model or one of its losses needs fields that the samples of this dataset lack."""
        self._check_crops(sizes.where.rpartition(".")[2], f"{where}.processors.image_processor.type")
        params, key = self.params("image_processor"), f"{where}.processors.image_processor.params"
        if (masked := self.masked_losses(sizes)) and params.get("mask", True) is None:
            raise UserError(
                f"{key}.mask is null, but {sizes.where}.losses contains {' and '.join(masked)}, for which masked "
                "patches are required. Set it to {} for the default mask."
            )
        losses = f"{sizes.where}.losses contains {' and '.join(sizes.code_losses)}" if sizes.code_losses else ""
        needs_view = losses and self.codes is None and sizes.codebook not in (None, "cached")
        if needs_view and params.get("codebook_size", True) is None:
            raise UserError(
                f"{key}.codebook_size is null, but {losses}, whose targets are computed from images of this size. "
                f"Set it to {sizes.codebook_size}, or set {where}.codes."
            )

    def _check_crops(self, model: str, key: str) -> None:
        """Raise UserError if the processor returns crops that the model does not use, or no crops for DINO."""
        if self.multicrop and model in ("flava", "flava_classification"):
            raise UserError(
                f"{key} is {MULTICROP}, which returns crops for the model flava_dino, but the model is {model}. Set it "
                "to flava_image."
            )
        kind = (self.processors.get("image_processor") or {}).get("type")
        if model == "flava_dino" and kind in PROCESSORS and not self.multicrop:
            raise UserError(f"{key} is {kind}, but the model flava_dino needs crops. Set it to {MULTICROP}.")

    def masked_losses(self, sizes: ModelSizes) -> tuple[str, ...]:
        """Return the model's losses that need a patch mask in the samples of this dataset."""
        return sizes.code_losses


@dataclass
class PMDConfig(ImageStreamConfig):
    """``pmd``: image-text pairs, e.g. the paper's Public Multimodal Datasets (70M pairs, section 3.5).

    With an image_processor of type flava_multicrop, only images are used; captions and a text_processor are optional.
    """

    REQUIRED = BOTH

    # number of batches whose samples are sorted together by caption length, to reduce padding; 1: no sorting
    length_buckets: int = ranged(1, at_least=1)
    # images: an epoch contains every training image once. pairs (as in the paper): for each path in splits.train, an
    # epoch contains as many samples as the path's manifest.json counts image-text pairs. If splits.train has weights,
    # this key is ignored
    epoch: str = ranged("images", choices=("images", "pairs"))
    # fraction of training pairs whose caption is replaced by another image's caption, for image-text matching; the
    # paper states no value, and torchmultimodal uses 0.1
    mismatch_probability: float = ranged(0.1, at_least=0, below=1)

    def required(self) -> tuple[str, ...]:
        """Return the names of the processors that must be set. Crops for DINO need no captions."""
        return IMAGE if self.multicrop else BOTH

    def check(self, where: str) -> None:
        super().check(where)
        if self.multicrop and self.length_buckets > 1:
            raise UserError(
                f"{where}.length_buckets is {self.length_buckets}, but the image_processor {MULTICROP} uses no "
                "captions. Remove length_buckets."
            )

    def masked_losses(self, sizes: ModelSizes) -> tuple[str, ...]:
        """Return the losses on image-text pairs. All need a patch mask: pairs are encoded with and without the mask."""
        return tuple(loss for loss in sizes.losses if loss not in ("flava_mim", "flava_mlm"))


@dataclass
class ImageNetConfig(ImageStreamConfig):
    """``imagenet``: images without text, e.g. the paper's ImageNet-1k (section 3.5)."""

    # class names in label order: a list, or a file in data_dir; null: the names of the folders in the training split
    classes: Any = None

    def check(self, where: str) -> None:
        super().check(where)
        check_classes(self.classes, f"{where}.classes")


@dataclass
class TextCorpusConfig(StreamConfig):
    """``ccnews_bookcorpus``: blocks of tokenized text, e.g. the paper's CCNews and BookCorpus (section 3.5)."""

    PROCESSORS = REQUIRED = TEXT

    # tokens per sample, including [CLS] and [SEP]
    block_size: int = ranged(512, at_least=3)

    def check(self, where: str) -> None:
        super().check(where)
        max_length = self.params("text_processor").get("max_length")
        if isinstance(max_length, int) and max_length < self.block_size:
            raise UserError(
                f"{where}.processors.text_processor.params.max_length is {max_length}, but {where}.block_size is "
                f"{self.block_size}. Set it to {self.block_size}."
            )


@dataclass
class KarpathyConfig(DatasetConfig):
    """``karpathy``: Flickr30K and COCO for retrieval (FLAVA paper, §4). A split is one of Karpathy's split files."""

    REQUIRED = BOTH
    build = build_dir = max_bad_share = None  # not supported: a retrieval gallery must be complete

    # folder of the images, in data_dir; null: data_dir
    image_dir: str | None = None
    # number of captions to use per image, in file order; null: all. Published results use five
    captions_per_image: int | None = ranged(5, at_least=1)

    def check(self, where: str) -> None:
        super().check(where)
        for split in SPLITS:
            if len(self.splits.paths(split)) > 1:
                raise UserError(f"{where}.splits.{split}: must be one file, got {len(self.splits.paths(split))} files.")


GLUE_TASKS = ("cola", "mnli", "mnli_matched", "mnli_mismatched", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
GLUE_SPLITS = ("train", "dev", "test")


@dataclass
class GlueSplitsConfig:
    """GLUE's split for each split of MMF. The paper reports scores on dev. GLUE's test split has no labels and is
    used by mmf_predict.
    """

    train: str = ranged("train", choices=GLUE_SPLITS)
    val: str = ranged("dev", choices=GLUE_SPLITS)
    test: str = ranged("test", choices=GLUE_SPLITS)


@dataclass
class GlueConfig(DatasetConfig):
    """``glue``: one of the GLUE tasks for finetuning, read from GLUE's published files.

    data_dir contains the folders from GLUE's zip files (CoLA, MRPC, ...), or folders with JSONL or parquet files (cola,
    mrpc, ...).
    """

    PROCESSORS = REQUIRED = TEXT
    TEXT_TYPE = "flava_tokens"

    task: str | None = ranged(None, choices=GLUE_TASKS)
    splits: GlueSplitsConfig = field(default_factory=GlueSplitsConfig)  # type: ignore[assignment]
    # maximum fraction of malformed lines, which are skipped; null: no limit
    max_bad_share: float | None = ranged(0.01, at_least=0, at_most=1)

    def check(self, where: str) -> None:
        super().check(where)
        if self.task is None:
            raise UserError(f"{where}.task: must be given, one of {', '.join(GLUE_TASKS)}.")


# dataset -> config class
DATASETS: dict[str, type[DatasetConfig]] = {
    "ccnews_bookcorpus": TextCorpusConfig,
    "glue": GlueConfig,
    "image_classification": ImageClassificationConfig,
    "image_text_classification": ImageTextClassificationConfig,
    "imagenet": ImageNetConfig,
    "karpathy": KarpathyConfig,
    "pmd": PMDConfig,
}
