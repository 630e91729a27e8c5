"""Folders of models in the format of Hugging Face: weights, configuration, processors, tokenizer and model card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.config.model import FlavaConfig
from mmf_flava.data.processor_files import label_names, write_hugging_face, write_json
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.files import atomic

CARD = "README.md"


def write_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    config: FlavaConfig,
    values: dict[str, Any],
    processors: SavedProcessors,
    tokenizer: Path,
    card: str,
) -> list[str]:
    """Write a model folder atomically, and return notes. Other files in an existing folder are kept.

    Args:
        tensors: the weights under the keys of transformers.
        values: the content of config.json.
        tokenizer: folder whose tokenizer files are copied.
        card: content of README.md. An existing file is kept, because its author may have edited it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    notes = [f"Wrote {folder / CARD}, the model card. Read it before you publish the weights."]
    with atomic.replace_folder(folder, keep=True) as output:
        save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
        write_json(output / "config.json", {**values, **label_names(processors.classes)})
        write_hugging_face(output, processors, config, tokenizer)
        if (folder / CARD).exists():
            notes = [f"{folder / CARD} exists and was kept. Delete it to write a new model card."]
        else:
            (output / CARD).write_text(card, encoding="utf-8")
    return notes + _processor_notes(processors)


def replace_tokenizer(processors: SavedProcessors, folder: Path) -> SavedProcessors:
    """Return the processors with the tokenizer in ``folder``.

    Raises:
        UserError: the tokenizer's vocabulary differs from the vocabulary that the weights were trained with.
    """
    tokenizer = load_tokenizer(_existing(folder))
    sha256 = compute_vocabulary_hash(tokenizer)
    processors.check_vocabulary(sha256, f"--tokenizer {folder}")
    return replace(processors, tokenizer=tokenizer.to_str(), vocabulary_sha256=sha256)


def _existing(folder: Path) -> Path:
    folder = folder.expanduser()
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(
            f"--tokenizer: {folder} has neither tokenizer.json nor vocab.txt. Pass a folder with one of them."
        )
    return folder


def _processor_notes(processors: SavedProcessors) -> list[str]:
    notes = []
    if processors.tokenizer is None:
        notes.append(
            "No tokenizer was found, but FlavaProcessor requires one. Pass a tokenizer folder with --tokenizer DIR."
        )
    if processors.mean is None or processors.std is None:
        notes.append(
            "No image mean and std were found; CLIP's values were written. Correct preprocessor_config.json if the "
            "weights were trained with other values."
        )
    return notes
