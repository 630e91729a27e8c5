"""Default tokenizer, image mean and image std of a run's datasets, read from the weights that the run starts from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from mmf_flava.compat.dataset_config import read_model_sizes
from mmf_flava.config.datasets import MULTICROP
from mmf_flava.config.processors import CLIP, IMAGENET, MulticropConfig, Statistics
from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.schema import parse_section
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.processor_files import PROCESSORS_FILE, TOKENIZER_FILE, read_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.files.checksums import CorruptFileError, verify_file
from mmf_flava.weights.sources import find_processor_files

STATE = "flava_initial_processors"  # key in MMF's registry
TEXT_TYPES = ("flava_text", "flava_tokens")
IMAGE_TYPES = ("flava_image", "flava_image_transform", MULTICROP)


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
        default_statistics = _default_statistics(config)
        current = InitialProcessors(saved, positions, allow_missing, default_statistics)
        registry.register(STATE, (config, current))
        if saved is not None:
            tokenizer, max_length, statistics = (
                any(all(params.get(key) is None for key in keys) for params in _params(config, types))
                for types, keys in (
                    (TEXT_TYPES, ("tokenizer",)),
                    (TEXT_TYPES, ("max_length",)),
                    (IMAGE_TYPES, ("mean", "normalisation")),
                )
            )
            saved.warn_of_assumptions(tokenizer, max_length, statistics, default_statistics)
    return current


def _default_statistics(config: Any) -> tuple[Statistics, Statistics]:
    """Return the image mean and std that are used if the weights store none: those of the run's crops for DINO, if any.

    The same model is trained and evaluated on all datasets of a run, so that all need the same values.
    """
    for params in _params(config, (MULTICROP,)) if config is not None else ():
        mean, std = parse_section(MulticropConfig, params, MULTICROP).statistics()
        return (mean, std) if mean is not None and std is not None else IMAGENET
    return CLIP


def stored_classes() -> tuple[str, ...] | None:
    """Return the class names stored with the classifier that the run resumes or loads, in label order.

    Return None for other models, for a new classifier, and for weights without class names or of another number.
    """
    saved = stored_classifier()
    if saved is None or not saved.classes:
        return None
    labels = registry.get("config")["model_config"]["flava_classification"].get("num_labels")
    return saved.classes if labels in (None, len(saved.classes)) else None


def stored_classifier() -> SavedProcessors | None:
    """Return what is stored with the classifier that the run resumes or loads; None for other models or a new one."""
    config = registry.get("config", default=None, no_warning=True)
    if config is None or config.get("model") != "flava_classification":
        return None
    current = initial_processors(in_run=True)
    # weights in model_config.flava_classification.pretrained may have another classifier, which is not loaded
    return current.saved if current.allow_missing is None else None


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
