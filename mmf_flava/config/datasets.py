"""Config classes of the datasets, one for each config section ``dataset_config.NAME``.

Each dataset builder in ``mmf_flava.data`` has one of these classes as attribute ``CONFIG``. The YAML files in
projects/flava/configs/datasets set the folders and processors of the datasets.
"""

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from omegaconf import MISSING

from mmf_flava.config.columns import check_columns
from mmf_flava.config.processors import PROCESSORS, ModelSizes
from mmf_flava.config.ranges import ranged
from mmf_flava.config.schema import parse_section, suggestion
from mmf_flava.config.splits import SPLITS, SplitsConfig
from mmf_flava.errors import UserError

IMAGE: tuple[str, ...] = ("image_processor",)
TEXT: tuple[str, ...] = ("text_processor",)
BOTH = IMAGE + TEXT


@dataclass
class ProcessorEntry:
    """``processors.NAME``: a registered processor and its params, see ``config.processors``."""

    type: str = MISSING
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class DatasetConfig:
    """Config keys that every dataset has.

    Class attributes:
        PROCESSORS: names of the processors that the dataset uses.
        REQUIRED: names of the processors that must be set.
        IMAGE_TYPE, TEXT_TYPE: types of the processors. Other types of mmf_flava do not return the required fields.
        SETS_LABELS: whether the data determine the number of labels, the loss and the metrics of a classifier.
    """

    PROCESSORS = BOTH
    REQUIRED = IMAGE
    IMAGE_TYPE, TEXT_TYPE = "flava_image", "flava_text"
    SETS_LABELS = False

    # folder of the data
    data_dir: str = MISSING
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    # name -> {type, params}; null: no processor
    processors: dict[str, Any] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raise UserError for an unknown, invalid or missing processor."""
        for name, entry in self.processors.items():
            if name not in self.PROCESSORS:
                raise UserError(f"'{name}' is not a key of {where}.processors.{suggestion(str(name), self.PROCESSORS)}")
            if entry is not None:
                parsed = parse_section(ProcessorEntry, entry, f"{where}.processors.{name}")
                # MMF warns if params are missing, and fails outside a run
                self.processors[name] = {**entry, "params": parsed.params}
                expected = self.IMAGE_TYPE if name in IMAGE else self.TEXT_TYPE
                if parsed.type in PROCESSORS and parsed.type != expected:
                    raise UserError(
                        f"{where}.processors.{name}.type: {parsed.type} does not return the fields that this dataset "
                        f"needs. Set it to {expected}."
                    )
        for name in self.REQUIRED:
            if not self.processors.get(name):
                raise UserError(
                    f"{where}.processors.{name}: must be given. Set the processor's type, e.g. flava_{name[:-10]}."
                )

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        """Raise UserError if a value does not fit the model. ``where`` is the section's full name."""

    def params(self, processor: str) -> dict[str, Any]:
        """Return the params of a processor as written in the config."""
        return (self.processors.get(processor) or {}).get("params") or {}


@dataclass
class EntriesConfig:
    """Config keys that mmf_flava adds to MMF's datasets."""

    # maximum fraction of training samples that are replaced because their entries are invalid; null: no limit
    max_bad_share: float | None = ranged(0.01, at_least=0, at_most=1)


@dataclass
class StreamConfig(DatasetConfig):
    """Config keys of the datasets that are read as an endless stream of samples."""

    REPLACED = MappingProxyType({"shuffle_block": "training.lanes, the number of places from which a batch is read"})

    # demo, photos: create the data of demo.yaml or demo_photos.yaml in data_dir if they are missing
    build: str | None = ranged(None, choices=("demo", "photos"))
    # maximum fraction of training samples that are replaced because their records are invalid; null: no limit
    max_bad_share: float | None = ranged(0.01, at_least=0, at_most=1)


@dataclass
class RecordsConfig(StreamConfig):
    """Config keys of the datasets whose records contain images.

    The splits list tar shards, globs, folders or image lists (.jsonl, .json) in data_dir, or URLs of tar shards (http,
    https, s3). Braces in a URL stand for several shards: "https://host/{00000..00099}.tar".
    """

    # folder in data_dir to which the paths in image lists are relative; null: the folder of each list
    image_dir: str | None = None
    # columns of tables: {image: filepath, caption: title, label: class, id: uid, split: fold}; caption may be a list of
    # columns. null, or a role that is not listed: found by common names
    columns: Any = None
    # maximum size in bytes of the cache of remote shards; the least recently used shards are deleted. null: no limit
    cache_bytes: int | None = ranged(None, at_least=1)

    def check(self, where: str) -> None:
        super().check(where)
        check_columns(self.columns, f"{where}.columns")


@dataclass
class ImageStreamConfig(RecordsConfig):
    """Config keys of the image datasets for pretraining."""

    # number of fixed random crops of each image, one of which is chosen at random for each training sample; null: every
    # training sample is a new random crop
    views: int | None = ranged(None, at_least=1)
    # image codes written by mmf_flava.cache_codes: a path, or a name in data_dir/codes; null: no cached codes
    codes: str | None = None

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        """Raise UserError if a loss needs a patch mask or image codes that the samples of this dataset do not have."""
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

    def masked_losses(self, sizes: ModelSizes) -> tuple[str, ...]:
        """Return the model's losses that need a patch mask in the samples of this dataset."""
        return sizes.code_losses


@dataclass
class PMDConfig(ImageStreamConfig):
    """``pmd``: image-text pairs, e.g. the paper's Public Multimodal Datasets (70M pairs, section 3.5)."""

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
        _check_classes(self.classes, f"{where}.classes")


@dataclass
class ImageClassificationConfig(RecordsConfig):
    """``image_classification``: labelled images for zero-shot classification, linear probes and finetuning."""

    # name of a published dataset in torchvision, see mmf_flava/data/image_sets/catalogue.py; splits then lists the
    # names of its splits; several are concatenated. null: splits lists paths of images, as for imagenet
    source: str | None = None
    # true: torchvision downloads the dataset ``source`` if it is missing
    download: bool = False
    # class names in label order: a list, or a file in data_dir; null: the training split's classes
    classes: Any = None
    # true: training uses random crops and a new random order in every epoch
    augment: bool = False

    def check(self, where: str) -> None:
        super().check(where)
        _check_classes(self.classes, f"{where}.classes")
        if self.splits.weights("train") is not None:
            raise UserError(f"{where}.splits.train: weights are only supported for pretraining. Use a list of paths.")


TASKS = ("single_label", "multi_label", "regression")


@dataclass
class ImageTextClassificationConfig(RecordsConfig):
    """``image_text_classification``: the user's own images, texts or both, with labels.

    A split that is null in ``splits`` is found in data_dir: by the column split, by files or folders named train, val
    and test, or else by ``val_share`` and ``test_share``.
    """

    REQUIRED = ()
    TEXT_TYPE = "flava_tokens"
    SETS_LABELS = True

    # single_label: one class per record | multi_label: any number of classes | regression: a number
    task: str = ranged("single_label", choices=TASKS)
    # what separates the classes of a record if its label is one text; only for multi_label
    separator: str = ","
    # class names in label order: a list, or a file in data_dir; null: the classes in the data, sorted
    classes: Any = None
    # factors of the loss of each class: balanced (inversely proportional to the number of training records), or a
    # mapping from class names to factors, 1 for the others; null: 1
    class_weights: Any = None
    # fractions of the records for the splits val and test, if data_dir has no splits
    val_share: float = ranged(0.15, at_least=0, below=1)
    test_share: float = ranged(0.15, at_least=0, below=1)
    # true: training uses random crops of the images, see processors.image_processor.params.crop_scale
    augment: bool = False

    def check(self, where: str) -> None:
        super().check(where)
        _check_classes(self.classes, f"{where}.classes")
        if self.splits.weights("train") is not None:
            raise UserError(f"{where}.splits.train: weights are only supported for pretraining. Use a list of paths.")
        if not any(self.processors.get(name) for name in BOTH):
            raise UserError(
                f"{where}.processors: image_processor and text_processor are both null, so the model has no input. "
                "Set one of them."
            )
        if not self.separator.strip() and self.separator != " ":
            raise UserError(f"{where}.separator: must not be empty. Set it to the text between two classes, e.g. ','.")
        if self.val_share + self.test_share >= 1:
            raise UserError(
                f"{where}.val_share: val_share and test_share are {self.val_share + self.test_share:g} together, so no "
                "records remain for training. Decrease them."
            )
        if self.task == "regression" and (self.classes is not None or self.class_weights is not None):
            raise UserError(
                f"{where}.task: regression has no classes. Remove classes and class_weights, or set task: single_label."
            )
        _check_class_weights(self.class_weights, f"{where}.class_weights")


def _check_class_weights(value: Any, where: str) -> None:
    is_mapping = isinstance(value, dict) and value
    if not (value is None or value == "balanced" or is_mapping):
        raise UserError(f"{where}: must be balanced or a mapping from class names to factors, got {value!r}.")
    for name, factor in value.items() if is_mapping else ():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            raise UserError(f"{where}.{name}: must be a number above 0, got {factor!r}.")


def _check_classes(value: Any, where: str) -> None:
    names = value if isinstance(value, list) else []
    if not (value is None or isinstance(value, str | list)) or any(
        not isinstance(name, str | int) or isinstance(name, bool) for name in names
    ):
        raise UserError(f"{where}: must be a list of class names or a file with one name per line, got {value!r}.")


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
    build = max_bad_share = None  # not supported: a retrieval gallery must be complete

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
