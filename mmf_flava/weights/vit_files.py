"""Files of an image encoder alone: a folder for timm, and a checkpoint with the keys of DINO's published code.

The keys of mmf_flava's image encoder are timm's keys; DINO's vision transformer has the same ones.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.config.model import ImageEncoderConfig
from mmf_flava.files import atomic
from mmf_flava.weights.configs import HEADS_KEY

# width, layers, heads -> timm's architecture with patches of 16 pixels
ARCHITECTURES = {
    (192, 12, 3): "vit_tiny",
    (384, 12, 6): "vit_small",
    (768, 12, 12): "vit_base",
    (1024, 24, 16): "vit_large",
}
TIMM_EPS = 1e-6  # eps of the LayerNorms of timm's vision transformers
MASK_TOKEN = "mask_token"
LENGTH, DIRECTION = "head.last_layer.weight_g", "head.last_layer.weight_v"


def write_timm_folder(
    folder: Path, tensors: dict[str, Tensor], config: ImageEncoderConfig, mean: list[float], std: list[float]
) -> None:
    """Write a folder for ``timm.create_model("local-dir:FOLDER", pretrained=True)``. Other files in it are kept.

    Args:
        tensors: weights of the image encoder; the mask token, which timm's model does not have, is left out.
        mean, std: statistics with which images are normalised.
    """
    kept = {key: value.contiguous() for key, value in tensors.items() if key != MASK_TOKEN}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace_folder(folder, keep=True) as output:
        save_file(kept, output / "model.safetensors", metadata={"format": "pt", HEADS_KEY: str(config.num_heads)})
        atomic.write_json(output / "config.json", timm_config(config, mean, std))


def timm_config(config: ImageEncoderConfig, mean: list[float], std: list[float]) -> dict[str, Any]:
    """Return the content of timm's ``config.json``. All sizes are given, so the architecture is only a name."""
    sizes = (config.hidden_size, config.num_layers, config.num_heads)
    return {
        "architecture": f"{ARCHITECTURES.get(sizes, 'vit_base')}_patch16_224",
        "num_classes": 0,
        "num_features": config.hidden_size,
        "global_pool": "token",
        "model_args": {
            "img_size": config.image_size,
            "patch_size": config.patch_size,
            "embed_dim": config.hidden_size,
            "depth": config.num_layers,
            "num_heads": config.num_heads,
            "mlp_ratio": config.mlp_size / config.hidden_size,
        },
        "pretrained_cfg": {
            "input_size": [3, config.image_size, config.image_size],
            "fixed_input_size": True,
            "mean": mean,
            "std": std,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",  # the whole image is resized, as in the evaluations
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def write_dino_checkpoint(file: Path, tensors: dict[str, Tensor]) -> int:
    """Write student, teacher and dino_loss as in DINO's training checkpoints, and return the number of tensors.

    The student's keys start with ``module.``, because it was wrapped in DDP, and the teacher's do not. The lengths of
    the last layer's weights are written as 1 if they are not trained.

    Args:
        tensors: weights of the model ``flava_dino``.
    """
    student, teacher = (_network(tensors, name) for name in ("student.", "teacher."))
    content = {
        "student": {f"module.{key}": value for key, value in student.items()},
        "teacher": teacher,
        "dino_loss": {"center": tensors["center"].clone()},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace_file(file) as temporary:
        torch.save(content, temporary)
    return sum(map(len, content.values()))


def _network(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    network = {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}
    if LENGTH not in network:
        direction = network[DIRECTION]
        network[LENGTH] = direction.new_ones(len(direction), 1)
    return {re.sub(r"^encoder\.", "backbone.", key): value for key, value in network.items()}
