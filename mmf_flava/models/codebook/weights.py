"""Reading of the dVAE's weights: Hugging Face's codebook, a FLAVA checkpoint, or OpenAI's ``encoder.pkl``."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.weights.pickled_tensors import read_pickled_tensors
from mmf_flava.weights.sources import find_weights
from mmf_flava.weights.weight_files import read_tensors

FIRST_KEY = "blocks.input.weight"
PICKLE_SUFFIX = ".pkl"


def read_codebook_weights(source: str) -> dict[str, Tensor]:
    """Read the encoder's tensors under Hugging Face's keys (``blocks.input.weight``, ...).

    Args:
        source: a file, a folder, a URL, or a hub name such as ``facebook/flava-image-codebook`` or
            ``facebook/flava-full``; nothing in ``encoder.pkl`` is executed.

    Raises:
        UserError: the source was not found, or has no codebook.
    """
    file = find_codebook_file(source)
    tensors = read_pickled_tensors(file) if file.suffix == PICKLE_SUFFIX else read_tensors(file)[0]
    weights = extract_codebook(tensors)
    if not weights:
        raise UserError(
            f"{file} has no image codebook: none of its {len(tensors)} keys is {FIRST_KEY} or ends with it."
        )
    return weights


def find_codebook_file(source: str) -> Path:
    """Return the local file of a path, URL or hub name; download it if it is remote."""
    pickled = Path(source).expanduser() / f"encoder{PICKLE_SUFFIX}"
    return pickled if pickled.is_file() else find_weights(source)


def extract_codebook(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the codebook's tensors of a checkpoint under Hugging Face's keys; empty if there are none.

    OpenAI's and torchmultimodal's keys end with ``.w`` and ``.b`` and have two levels less.
    """
    renamed = {hugging_face_key(key): value for key, value in tensors.items()}
    prefixes = sorted((key.removesuffix(FIRST_KEY) for key in renamed if f".{key}".endswith(f".{FIRST_KEY}")), key=len)
    if not prefixes:
        return {}
    start = f"{prefixes[0]}blocks."
    return {key.removeprefix(prefixes[0]): value for key, value in renamed.items() if key.startswith(start)}


def hugging_face_key(key: str) -> str:
    """Translate OpenAI's key of a parameter.

    ``blocks.group_1.block_1.res_path.conv_1.w`` -> ``blocks.group_1.group.block_1.res_path.path.conv_1.weight``.
    """
    key = re.sub(r"\b(group_\d+)\.(?!group\.)", r"\1.group.", key)
    key = re.sub(r"\bres_path\.(?!path\.)", "res_path.path.", key)
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key))
