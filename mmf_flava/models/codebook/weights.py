"""Reading of the dVAE encoder's weights from Hugging Face's codebook, a FLAVA checkpoint or OpenAI's encoder.pkl."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.weights.pickled_tensors import read_pickled_tensors
from mmf_flava.weights.sources import find_weights
from mmf_flava.weights.weight_files import read_tensors

FIRST_KEY = "blocks.input.weight"
PICKLE_SUFFIX = ".pkl"


def read_codebook_weights(source: str) -> dict[str, Tensor]:
    """Read the encoder's tensors, and return them under Hugging Face's keys (``blocks.input.weight``, ...).

    Args:
        source: file, folder, URL, or Hugging Face model ID such as ``facebook/flava-image-codebook`` or
            ``facebook/flava-full``. Pickled code in ``encoder.pkl`` is not executed.

    Raises:
        UserError: the source was not found, or has no codebook.
    """
    return read_found(lambda: find_codebook_file(source), _read)


def _read(file: Path) -> dict[str, Tensor]:
    tensors = read_pickled_tensors(file) if file.suffix.lower() == PICKLE_SUFFIX else read_tensors(file)[0]
    weights = extract_codebook(tensors)
    if not weights:
        raise UserError(
            f"{file} has no image codebook: none of its {len(tensors)} keys ends with {FIRST_KEY}. Set the path of the "
            "dVAE's weights or of a FLAVA checkpoint with a codebook."
        )
    return weights


def find_codebook_file(source: str) -> Path:
    """Return the local weights file for a path, URL or Hugging Face model ID; download the file if it is remote."""
    pickled = Path(source).expanduser() / f"encoder{PICKLE_SUFFIX}"
    return pickled if pickled.is_file() else find_weights(source)


def extract_codebook(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Extract the codebook's tensors from a checkpoint, under Hugging Face's keys; empty if there is no codebook.

    OpenAI's and torchmultimodal's keys end with ``.w`` and ``.b``, and lack the components ``group`` and ``path``.
    """
    renamed = {hugging_face_key(key): value for key, value in tensors.items()}
    prefixes = sorted((key.removesuffix(FIRST_KEY) for key in renamed if f".{key}".endswith(f".{FIRST_KEY}")), key=len)
    if not prefixes:
        return {}
    start = f"{prefixes[0]}blocks."
    return {key.removeprefix(prefixes[0]): value for key, value in renamed.items() if key.startswith(start)}


def hugging_face_key(key: str) -> str:
    """Translate a key of OpenAI's encoder to Hugging Face's key.

    ``blocks.group_1.block_1.res_path.conv_1.w`` -> ``blocks.group_1.group.block_1.res_path.path.conv_1.weight``.
    """
    key = re.sub(r"\b(group_\d+)\.(?!group\.)", r"\1.group.", key)
    key = re.sub(r"\bres_path\.(?!path\.)", "res_path.path.", key)
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key))
