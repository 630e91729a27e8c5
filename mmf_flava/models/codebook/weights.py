"""The dVAE's weights, wherever they lie: Hugging Face's codebook, a full FLAVA checkpoint, OpenAI's ``encoder.pkl``."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.weights.pickled_tensors import read_pickled_tensors
from mmf_flava.weights.sources import find
from mmf_flava.weights.weight_files import read_tensors

FIRST = "blocks.input.weight"
PICKLED = ".pkl"


def read_codebook_weights(source: str) -> dict[str, Tensor]:
    """The encoder's tensors by Hugging Face's names (``blocks.input.weight``, ...).

    Args:
        source: a file, a folder, an address, or a hub name such as ``facebook/flava-image-codebook`` or
            ``facebook/flava-full``; ``encoder.pkl`` is read without being executed.

    Raises:
        UserError: nothing is there, or what is there holds no codebook.
    """
    file = local_file(source)
    tensors = read_pickled_tensors(file) if file.suffix == PICKLED else read_tensors(file)[0]
    weights = codebook_weights(tensors)
    if not weights:
        raise UserError(
            f"{file} holds no image codebook: looked for {FIRST}, also below image_codebook., among its "
            f"{len(tensors)} tensors."
        )
    return weights


def local_file(source: str) -> Path:
    """The file of weights that a path, an address or a hub name means, downloaded where it has to be."""
    pickled = Path(source).expanduser() / f"encoder{PICKLED}"
    return pickled if pickled.is_file() else find(source)


def codebook_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The codebook's part of a checkpoint, by Hugging Face's names; empty where it has none.

    OpenAI and torchmultimodal write ``.w`` and ``.b`` and leave out two levels of names.
    """
    renamed = {hugging_face_name(key): value for key, value in tensors.items()}
    prefixes = sorted((key.removesuffix(FIRST) for key in renamed if f".{key}".endswith(f".{FIRST}")), key=len)
    if not prefixes:
        return {}
    start = f"{prefixes[0]}blocks."
    return {key.removeprefix(prefixes[0]): value for key, value in renamed.items() if key.startswith(start)}


def hugging_face_name(key: str) -> str:
    """``blocks.group_1.block_1.res_path.conv_1.w`` -> ``blocks.group_1.group.block_1.res_path.path.conv_1.weight``."""
    key = re.sub(r"\b(group_\d+)\.(?!group\.)", r"\1.group.", key)
    key = re.sub(r"\bres_path\.(?!path\.)", "res_path.path.", key)
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key))
