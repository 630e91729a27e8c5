"""Reading and writing of the files that store the processors of weights (``SavedProcessors``).

Checkpoints contain ``processors.json`` and ``tokenizer.json``. Safetensors files store the processors in their header.
Hugging Face folders contain ``preprocessor_config.json`` and the tokenizer's files.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.processor_base import DVAE_PATCH
from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD, MAX_LENGTH
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files import atomic
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.files.json_data import parse_object
from mmf_flava.weights.sources import TOKENIZER_FILES, find_processor_files
from mmf_flava.weights.weight_files import read_header

PROCESSORS_FILE, TOKENIZER_FILE = "processors.json", "tokenizer.json"
IMAGE_FILE, TOKENIZER_SETTINGS = "preprocessor_config.json", "tokenizer_config.json"
HEADER_KEY = "flava_processors"
REMEDY = "The file may be damaged: copy or download it again."


def read_processors(source: str | Path, cache_dir: str | Path | None = None) -> SavedProcessors:
    """Read the processors that are stored with weights. From the Hugging Face hub, only small files are downloaded.

    Args:
        source, cache_dir: see ``weights.sources.find_weights``.

    Raises:
        UserError: the source was not found, or a file is invalid.
    """
    name = hide_address(source)
    return read_found(lambda: find_processor_files(source, cache_dir), lambda location: _read(location, name))


def _read(location: Path | None, name: str) -> SavedProcessors:
    if location is None:
        return SavedProcessors(name)
    if location.is_file():
        if (text := read_header(location).get(HEADER_KEY)) is not None:
            where = f"{location}, header"
            return SavedProcessors.from_json(_parse_json(text, where), name, where)
        location = location.parent
    file = location / PROCESSORS_FILE
    if not file.is_file():
        return _read_hugging_face(location, name)
    tokenizer = location / TOKENIZER_FILE
    text = _read_text(tokenizer) if tokenizer.is_file() else None
    return SavedProcessors.from_json({**_read_json(file), "tokenizer": text}, name, str(file))


def write_processors(processors: SavedProcessors, folder: Path) -> None:
    """Write ``processors.json`` and, if there is a tokenizer, ``tokenizer.json`` to ``folder``."""
    values = processors.to_json()
    if (tokenizer := values.pop("tokenizer")) is not None:
        atomic.write_text(folder / TOKENIZER_FILE, tokenizer)
    write_json(folder / PROCESSORS_FILE, values)


def to_header(processors: SavedProcessors) -> dict[str, str]:
    """Return the entry that stores the processors in the header of a safetensors file."""
    return {HEADER_KEY: json.dumps(processors.to_json())}


# ---------------------------------------------------------------------- Hugging Face


def _read_hugging_face(folder: Path, source: str) -> SavedProcessors:
    """Read the processors in a Hugging Face folder, or the vocabulary hash in a checkpoint without processors."""
    values: dict[str, Any] = {"vocabulary_sha256": _recorded_hash(folder / "state.json")}
    if any((folder / name).is_file() for name in (TOKENIZER_FILE, "vocab.txt")):
        tokenizer = load_tokenizer(folder)
        settings = _read_json(folder / TOKENIZER_SETTINGS)
        # max_length is written by ``write_hugging_face``; model_max_length is the number of position embeddings
        limits = [settings.get("max_length") or MAX_LENGTH, settings.get("model_max_length")]
        values = {
            "tokenizer": tokenizer.to_str(),
            "vocabulary_sha256": compute_vocabulary_hash(tokenizer),
            "max_length": min(limit for limit in limits if isinstance(limit, int)),
        }
    if image := _read_json(folder / IMAGE_FILE):
        size, normalised = image.get("size"), image.get("do_normalize", True)
        values["image_size"] = size.get("height", size.get("shortest_edge")) if isinstance(size, Mapping) else size
        # same defaults as Hugging Face's FlavaImageProcessor
        values["mean"] = image.get("image_mean") or CLIP_MEAN if normalised else (0, 0, 0)
        values["std"] = image.get("image_std") or CLIP_STD if normalised else (1, 1, 1)
    values["classes"] = _read_classes(folder)
    return SavedProcessors.from_json(values, source, str(folder / IMAGE_FILE))


def _recorded_hash(file: Path) -> str | None:
    """Return the vocabulary hash in a checkpoint's ``state.json``, or None if there is no unique hash."""
    recorded = _read_json(file).get("vocabularies")
    hashes = {*recorded.values()} if isinstance(recorded, dict) else set()
    return hashes.pop() if len(hashes) == 1 else None


def write_hugging_face(folder: Path, processors: SavedProcessors, config: FlavaConfig, source: Path) -> None:
    """Write the processors in the layout that ``transformers.FlavaProcessor.from_pretrained`` reads.

    Args:
        source: folder of the original weights. If it has a tokenizer with the same vocabulary, its files are copied.
    """
    write_json(folder / IMAGE_FILE, _image_processor(processors, config))
    if processors.tokenizer is None:
        return
    settings: dict[str, Any] = {"tokenizer_class": "BertTokenizer"}
    if any((source / name).is_file() for name in (TOKENIZER_FILE, "vocab.txt")):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        settings |= _read_json(source / TOKENIZER_SETTINGS)
    atomic.write_text(folder / TOKENIZER_FILE, processors.tokenizer)
    settings.setdefault("model_max_length", config.text_encoder.max_length)
    if processors.max_length is not None:
        settings["max_length"] = processors.max_length
    normalizer = parse_object(processors.tokenizer).get("normalizer") or {}
    if "lowercase" in normalizer:
        settings["do_lower_case"] = normalizer["lowercase"]
    write_json(folder / TOKENIZER_SETTINGS, {**settings, "processor_class": "FlavaProcessor"})


def label_names(classes: Sequence[str] | None) -> dict[str, Any]:
    """Return the entries of Hugging Face's ``config.json`` that name the classes; empty if there are none."""
    if not classes:
        return {}
    return {"id2label": dict(enumerate(classes)), "label2id": {name: label for label, name in enumerate(classes)}}


def _read_classes(folder: Path) -> list[str] | None:
    """Return the class names in Hugging Face's ``config.json``. Its default names LABEL_0, LABEL_1 are ignored."""
    names = _read_json(folder / "config.json").get("id2label")
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(len(names)))):
        return None
    classes = [str(names[str(label)]) for label in range(len(names))]
    return None if classes == [f"LABEL_{label}" for label in range(len(names))] else classes


def _image_processor(processors: SavedProcessors, config: FlavaConfig) -> dict[str, Any]:
    """Return the config of Hugging Face's FlavaImageProcessor for the model's image size and patch size."""
    image = config.image_encoder
    grid = image.image_size // image.patch_size
    side = {"height": image.image_size, "width": image.image_size}
    code = {"height": DVAE_PATCH * grid, "width": DVAE_PATCH * grid}
    patches = grid * grid
    return {
        "image_processor_type": "FlavaImageProcessor",
        "processor_class": "FlavaProcessor",
        "size": side,
        "crop_size": side,
        "image_mean": list(processors.mean or CLIP_MEAN),
        "image_std": list(processors.std or CLIP_STD),
        "codebook_size": code,
        "codebook_crop_size": code,
        "input_size_patches": grid,
        # the released model masks 75 of 196 patches; use the same fraction for other grids
        "total_mask_patches": round(patches * 75 / 196),
        "mask_group_min_patches": min(16, max(1, round(patches * 16 / 196))),
    }


# ---------------------------------------------------------------------- JSON


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a JSON file."""
    atomic.write_json(file, values)


def _read_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file, or an empty dict if the file does not exist."""
    return _parse_json(_read_text(file), str(file)) if file.is_file() else {}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}). {REMEDY}") from None


def _parse_json(text: str, where: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}). {REMEDY}") from None
