"""The poolers of FLAVA's encoders, which the released weights have, but which no loss uses."""

import torch
from torch import Tensor


def add_poolers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the poolers of the three encoders, with N(0, 0.02) weights and zero biases, if they are missing.

    The other implementations of FLAVA have these parameters, but never use them.
    """
    complete = dict(tensors)
    generator = torch.Generator().manual_seed(0)  # fixed seed, so that the same weights always give the same file
    for encoder in ("image_encoder", "text_encoder", "multimodal_encoder"):
        norm = tensors.get(f"flava.{encoder}.norm.weight")
        name = f"unused.flava.{encoder}.pooler"
        if norm is not None and f"{name}.weight" not in tensors:
            width = len(norm)
            complete[f"{name}.weight"] = torch.empty(width, width).normal_(std=0.02, generator=generator).to(norm.dtype)
            complete[f"{name}.bias"] = torch.zeros(width, dtype=norm.dtype)
    return complete
