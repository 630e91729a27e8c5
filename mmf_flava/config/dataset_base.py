"""Config keys that several datasets have: data, splits, processors and columns."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from omegaconf import MISSING

from mmf_flava.config.columns import check_columns
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import PROCESSORS
from mmf_flava.config.ranges import ranged
from mmf_flava.config.schema import parse_section, suggestion
from mmf_flava.config.splits import SplitsConfig
from mmf_flava.errors import UserError

IMAGE: tuple[str, ...] = ("image_processor",)
TEXT: tuple[str, ...] = ("text_processor",)
BOTH = IMAGE + TEXT
FLAVA_IMAGE: tuple[str, ...] = ("flava_image",)


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
        IMAGE_TYPES, TEXT_TYPE: types of the processors. Other types of mmf_flava do not return the required fields.
        SETS_LABELS: whether the data determine the number of labels, the loss and the metrics of a classifier.
    """

    PROCESSORS = BOTH
    REQUIRED = IMAGE
    IMAGE_TYPES, TEXT_TYPE = FLAVA_IMAGE, "flava_text"
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
                expected = self.IMAGE_TYPES if name in IMAGE else (self.TEXT_TYPE,)
                if parsed.type in PROCESSORS and parsed.type not in expected:
                    raise UserError(
                        f"{where}.processors.{name}.type: {parsed.type} does not return the fields that this dataset "
                        f"needs. Set it to {' or '.join(expected)}."
                    )
        for name in self.required():
            if not self.processors.get(name):
                raise UserError(
                    f"{where}.processors.{name}: must be given. Set the processor's type, e.g. flava_{name[:-10]}."
                )

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        """Raise UserError if a value does not fit the model. ``where`` is the section's full name."""

    def required(self) -> tuple[str, ...]:
        """Return the names of the processors that must be set."""
        return self.REQUIRED

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

    # demo, photos: create the data of demo.yaml or demo_photos.yaml in build_dir if they are missing
    build: str | None = ranged(None, choices=("demo", "photos"))
    # null: data_dir, whose data are created. Otherwise data_dir may have other data, for which a recipe uses the
    # tokenizer and the codebook in build_dir
    build_dir: str | None = None
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
    # number of connections with which each data loader worker downloads records of remote shards in advance
    connections: int = ranged(8, at_least=1, at_most=64)

    def check(self, where: str) -> None:
        super().check(where)
        check_columns(self.columns, f"{where}.columns")
