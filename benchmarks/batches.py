"""The same random batches for every peer: full-size FLAVA inputs with the released masking."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmf_flava.data.masking import block_masks

WORDS, CODES, MASK = 30522, 8192, 103


@dataclass
class Batch:
    """B samples: images (B, 3, 224, 224), codebook views (B, 3, 112, 112) in [0, 1], codes and patch masks (B, 196),
    tokens (B, T) with 15 % masked, labels (B, T) with -1 elsewhere, matches (B,)."""

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
    """A batch of ``size`` samples of ``tokens`` tokens; with ``caption``, so many are words and the rest padding."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, WORDS, (size, tokens), generator=generator)
    mask = torch.ones(size, tokens, dtype=torch.bool)
    mask[:, (caption or tokens) :] = False
    ids[~mask] = 0
    chosen = torch.zeros_like(mask)
    chosen[:, 2::7] = True
    chosen &= mask
    return Batch(
        image=torch.randn(size, 3, 224, 224, generator=generator),
        codebook_image=torch.rand(size, 3, 112, 112, generator=generator),
        codes=torch.randint(0, CODES, (size, 196), generator=generator),
        patch_mask=torch.from_numpy(block_masks(rng, size, exact=True)),
        ids=ids,
        ids_masked=ids.masked_fill(chosen, MASK),
        labels=ids.masked_fill(~chosen, -1),
        mask=mask,
        match=torch.ones(size, dtype=torch.long),
    )
