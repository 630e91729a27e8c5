"""Random full-size FLAVA batches, identical for every implementation."""

from dataclasses import dataclass

import numpy as np
import torch
from patch_masks import block_masks
from torch import Tensor

VOCAB_SIZE, CODES, MASK_ID = 30522, 8192, 103


@dataclass
class Batch:
    """B samples.

    Shapes: image (B, 3, 224, 224) · codebook_image (B, 3, 112, 112) in [0, 1] · codes, patch_mask (B, 196) ·
    ids, ids_masked (B, T), one token in 7 masked · labels (B, T), -1 for unmasked tokens · mask (B, T), False for
    padding · match (B,).
    """

    image: Tensor
    codebook_image: Tensor
    codes: Tensor
    patch_mask: Tensor
    ids: Tensor
    ids_masked: Tensor
    labels: Tensor
    mask: Tensor
    match: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def make_batch(size: int, tokens: int, caption: int | None = None, seed: int = 0) -> Batch:
    """Return a batch of ``size`` samples with ``tokens`` tokens, of which ``caption`` (default: all) are no padding."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, VOCAB_SIZE, (size, tokens), generator=generator)
    mask = torch.ones(size, tokens, dtype=torch.bool)
    mask[:, (caption or tokens) :] = False
    ids[~mask] = 0
    masked = torch.zeros_like(mask)
    masked[:, 2::7] = True
    masked &= mask
    return Batch(
        image=torch.randn(size, 3, 224, 224, generator=generator),
        codebook_image=torch.rand(size, 3, 112, 112, generator=generator),
        codes=torch.randint(0, CODES, (size, 196), generator=generator),
        patch_mask=torch.from_numpy(block_masks(rng, size, exact=True)),
        ids=ids,
        ids_masked=ids.masked_fill(masked, MASK_ID),
        labels=ids.masked_fill(~masked, -1),
        mask=mask,
        match=torch.ones(size, dtype=torch.long),
    )
