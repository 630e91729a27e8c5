"""Default tokenizer, image mean and image std of a run's datasets, read from the weights that the run starts from."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from tokenizers import Tokenizer

from mmf_flava.compat import mmf_api
from mmf_flava.compat.dataset_config import read_model_sizes
from mmf_flava.config.model import MODELS
from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD, MAX_LENGTH, TOKENIZER
from mmf_flava.data.processor_files import PROCESSORS_FILE, TOKENIZER_FILE, read_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.files.checksums import CorruptFileError, verify_file
from mmf_flava.processes import rank
from mmf_flava.weights.sources import find_processor_files

STATE = "flava_initial_processors"  # key in MMF's registry
TEXT_TYPES = ("flava_text", "flava_tokens")
IMAGE_TYPES = ("flava_image", "flava_image_transform")


class InitialProcessors:
    """Default tokenizer, text length, and image mean and std of datasets whose config does not set them.

    The defaults are the values stored with the weights that the run starts from. A value that is not stored
    defaults to the value of the released FLAVA weights.

    Args:
        saved: the processors stored with the weights; None if training starts from scratch.
        positions: number of position embeddings of the text encoder; None if unknown.
        allow_missing: patterns of the names of weights that may be missing; None if no weights may be missing.

    Attributes:
        vocabulary_sha256: hash of the vocabulary of the run's datasets; None until a text processor is built.
        new_vocabulary: whether this vocabulary differs from the vocabulary of the weights. This is an error unless
            ``allow_missing`` matches the word embeddings.
    """

    def __init__(
        self,
        saved: SavedProcessors | None = None,
        positions: int | None = None,
        allow_missing: Sequence[str] | None = None,
    ) -> None:
        self.saved, self.positions, self.allow_missing = saved or SavedProcessors(""), positions, allow_missing
        self.vocabulary_sha256: str | None = None
        self.new_vocabulary = False
        self._contradictions: set[str] = set()

    def load_tokenizer(self, folder_or_name: str | None, max_length: int | None) -> tuple[Tokenizer, int]:
        """Return the tokenizer and the maximum number of tokens of a text processor.

        Args:
            folder_or_name: folder or Hugging Face model ID of the tokenizer; None: the default tokenizer.
            max_length: maximum number of tokens; None: the default.

        Raises:
            UserError: the tokenizer was not found, its vocabulary differs from the vocabulary of the weights, or
                ``max_length`` is larger than the number of position embeddings.
        """
        name = folder_or_name or TOKENIZER
        stored = None if folder_or_name else self.saved.build_tokenizer()
        tokenizer = load_tokenizer(name) if stored is None else stored
        self.vocabulary_sha256 = compute_vocabulary_hash(tokenizer)
        self.new_vocabulary = self.saved.check_vocabulary(
            self.vocabulary_sha256, f"tokenizer {name}", self.allow_missing
        )
        if max_length is None:
            max_length = min(self.saved.max_length or MAX_LENGTH, self.positions or MAX_LENGTH)
        elif self.positions is not None and max_length > self.positions:
            raise UserError(
                f"max_length is {max_length}, but the text encoder has {self.positions} positions. Set it to at most "
                f"{self.positions}."
            )
        return tokenizer, max_length

    def has_new_vocabulary(
        self, source: str | Path, allow_missing: Sequence[str], cache_dir: str | Path | None = None
    ) -> bool:
        """Return whether the vocabulary of the run's datasets differs from the vocabulary of the weights in ``source``.

        Raises:
            UserError: the vocabularies differ, and no pattern in ``allow_missing`` matches the word embeddings.
        """
        if self.vocabulary_sha256 is None:
            return False
        saved = read_processors(source, cache_dir)
        if saved.vocabulary_sha256 is None and rank() == 0:
            warnings.warn(
                f"{source} does not store its vocabulary. It is assumed to be the vocabulary of the run's tokenizer.",
                stacklevel=3,
            )
        key = "word_embeddings.weight"
        return saved.check_vocabulary(self.vocabulary_sha256, "The run's tokenizer", allow_missing, key)

    def statistics(
        self, image_size: int, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Return the mean and std of an image processor. If they are None, return the defaults.

        Warn if the image size, mean or std differs from the value that the weights were trained with.
        """
        saved = self.saved
        mean, std = tuple(mean or saved.mean or CLIP_MEAN), tuple(std or saved.std or CLIP_STD)
        for name, value, trained in (
            ("image_size", image_size, saved.image_size),
            ("mean", list(mean), saved.mean and list(saved.mean)),
            ("std", list(std), saved.std and list(saved.std)),
        ):
            message = f"{name} is set to {value}, but {saved.source} was trained with {name} {trained}."
            if trained not in (None, value) and message not in self._contradictions and rank() == 0:
                self._contradictions.add(message)
                warnings.warn(message, stacklevel=3)
        return mean, std


def initial_processors(in_run: bool) -> InitialProcessors:
    """Return the default processors of the current run.

    Warn if the weights that the run starts from do not store all of these processors.

    Args:
        in_run: whether MMF's current config is used; if False, return the defaults of training from scratch.
    """
    if not in_run:
        return InitialProcessors()
    config = registry.get("config", default=None, no_warning=True)
    known, current = registry.get(STATE, default=None, no_warning=True) or (None, None)
    if current is None or known is not config:
        saved, allow_missing = _read(config)
        positions = None if config is None else read_model_sizes(config).positions
        current = InitialProcessors(saved, positions, allow_missing)
        registry.register(STATE, (config, current))
        if saved is not None:
            tokenizer, max_length, statistics = (
                any(params.get(key) is None for params in _params(config, types))
                for types, key in ((TEXT_TYPES, "tokenizer"), (TEXT_TYPES, "max_length"), (IMAGE_TYPES, "mean"))
            )
            saved.warn_of_assumptions(tokenizer, max_length, statistics)
    return current


def stored_classes() -> tuple[str, ...] | None:
    """Return the class names stored with the classifier that the run resumes or loads, in label order.

    Return None for other models, for a new classifier, and for weights without class names or of another number.
    """
    config = registry.get("config", default=None, no_warning=True)
    if config is None or config.get("model") != "flava_classification":
        return None
    current = initial_processors(in_run=True)
    classes = current.saved.classes
    # weights in model_config.flava_classification.pretrained may have another classifier, which is not loaded
    if current.allow_missing is not None or not classes:
        return None
    return classes if len(classes) == config["model_config"]["flava_classification"].get("num_labels") else None


def _read(config: Any) -> tuple[SavedProcessors | None, list[str] | None]:
    """Return the processors of the first existing weights in a config, and the patterns of weights they may lack.

    Weights that do not exist are skipped here, because loading them raises an error later.
    """
    if config is None or config.get("model") not in MODELS:
        return None, None
    allow_missing = list((config.get("checkpoint") or {}).get("allow_missing") or [])
    for source, patterns in _sources(config, allow_missing):
        cache_dir = (config.get("env") or {}).get("cache_dir")
        try:
            location = find_processor_files(source, cache_dir)
        except UserError:
            continue
        try:
            return read_processors(source, cache_dir), patterns
        except UserError:
            if location is None or location.exists():
                raise
    return None, allow_missing


def _sources(config: Any, allow_missing: list[str]) -> Iterator[tuple[str | Path, list[str] | None]]:
    """Yield the weights that a run may start from, in order of precedence, and patterns of weights they may lack."""
    section = config.get("checkpoint") or {}
    if section.get("resume"):
        folder = Path(mmf_api.save_dir())
        if (folder / PROCESSORS_FILE).is_file():  # written by flava_finetune
            yield folder / PROCESSORS_FILE, None
        tried: set[Path] = set()
        # list the checkpoints again after trying them, because a run may replace its checkpoints meanwhile
        while found := {*(folder / "checkpoints").glob("update_*")} - tried:
            for checkpoint in sorted(found, reverse=True):
                if _is_intact(checkpoint):
                    yield checkpoint, None
            tried |= found
    if section.get("resume_file"):
        pretrained = section.get("resume_pretrained") and config["model"] == "flava"
        yield section["resume_file"], allow_missing if pretrained else None
    model = (config.get("model_config") or {}).get(config["model"]) or {}
    if model.get("pretrained"):
        yield model["pretrained"], allow_missing


def _is_intact(checkpoint: Path) -> bool:
    """Return whether a checkpoint's processor files match their checksums. Runs skip corrupt checkpoints."""
    try:
        for name in (PROCESSORS_FILE, TOKENIZER_FILE):
            verify_file(checkpoint / name)
    except CorruptFileError:
        return False
    return True


def _params(config: Any, types: tuple[str, ...]) -> Iterator[Any]:
    """Yield the config key ``params`` of all processors of the run's datasets whose type is one of ``types``."""
    for name in str(config.get("datasets") or "").split(","):
        section = (config.get("dataset_config") or {}).get(name) or {}
        for processor in (section.get("processors") or {}).values():
            if processor and processor.get("type") in types:
                yield processor.get("params") or {}
