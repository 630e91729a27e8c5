"""The commands that create the files a recipe needs, with the sizes and paths of this recipe, for error messages."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmf_flava.compat.dataset_config import dataset_names, read_model_sizes
from mmf_flava.compat.run_device import current_config
from mmf_flava.config.paths import resolve_path
from mmf_flava.files.download import is_remote

PREPARE = "python -m mmf_flava.data.prepare"
IMAGES, PAIRS, TEXT = ("pmd", "imagenet"), ("pmd",), "ccnews_bookcorpus"


def codebook_command(path: str | Path, codes: int, config: Any = None) -> str:
    """Return the command that fits a k-means codebook to the training images of a recipe.

    Args:
        path: file of the codebook.
        codes: number of codes of the recipe's model.
        config: config of the run; None: MMF's current config. Values that it does not have are placeholders.
    """
    config = current_config() if config is None else config
    sizes = read_model_sizes(config) if config is not None else None
    side, patch = "PIXELS", "PIXELS"
    if sizes is not None and sizes.image_size and sizes.patch_size:
        pixels = _codebook_size(config) or sizes.codebook_size or sizes.image_size
        side, patch = str(pixels), str(pixels // (sizes.image_size // sizes.patch_size))
    src = train_paths(config, IMAGES) or ["IMAGES"]
    options = ["--image-size", side, "--patch-size", patch, "--codes", str(codes), "--out", str(path)]
    return _join("codebook", ["--src", *src, *options])


def tokenizer_command(folder: str | Path, config: Any = None) -> str:
    """Return the command that trains a tokenizer on the training captions of a recipe.

    The texts of tokenized corpora are unknown, so they are a placeholder.

    Args:
        folder: folder of the tokenizer.
        config: config of the run; None: MMF's current config. Values that it does not have are placeholders.
    """
    config = current_config() if config is None else config
    sizes = read_model_sizes(config) if config is not None else None
    captions = train_paths(config, PAIRS)
    src = captions if captions and TEXT not in dataset_names(config) else [*captions, "TEXTS"]
    vocabulary = str(sizes.vocabulary if sizes is not None and sizes.vocabulary else "TOKENS")
    return _join("tokenizer", ["--src", *src, "--vocabulary", vocabulary, "--out", str(folder)])


def build_command(kind: str, folder: str | Path) -> str:
    """Return the command that creates the data of ``build: KIND``."""
    return _join(kind, ["--out", str(folder)])


def train_paths(config: Any, names: Sequence[str]) -> list[str]:
    """Return the training paths of the first of the run's datasets in ``names``, resolved against its data_dir."""
    for name in names:
        section = _dataset(config, name)
        listed = _get(_get(section, "splits"), "train")
        paths = [listed] if isinstance(listed, str) else list(listed or ())
        if paths:
            folder = _get(section, "data_dir") or ""
            return [str(path) if is_remote(path) else str(resolve_path(path, folder)) for path in paths]
    return []


def _codebook_size(config: Any) -> int | None:
    """Return the height and width of the codebook's input, if a dataset of the run sets it."""
    for name in IMAGES:
        processor = _get(_get(_dataset(config, name), "processors"), "image_processor")
        if isinstance(size := _get(_get(processor, "params"), "codebook_size"), int):
            return size
    return None


def _dataset(config: Any, name: str) -> Any:
    return _get(_get(config, "dataset_config"), name) if config is not None and name in dataset_names(config) else None


def _get(section: Any, key: str) -> Any:
    return section.get(key) if isinstance(section, Mapping) else None


def _join(command: str, words: list[str]) -> str:
    return f"{PREPARE} {command} {shlex.join(words)}"
