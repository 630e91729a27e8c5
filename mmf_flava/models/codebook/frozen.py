"""Base class of codebooks: a module that training does not change."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


CHUNK_SIZE = 64  # images that a codebook encodes at a time


class Frozen(nn.Module):
    """A module without gradients that stays in eval mode and keeps its dtype when its parent model is converted.

    sha256: hash of the weights (see ``weights_sha256``), or None before they are loaded.
    """

    sha256: str | None = None

    @torch.no_grad()
    def codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, counts: Sequence[int]) -> Tensor:
        """Return (N,) codes where the mask is True.

        Images are encoded ``CHUNK_SIZE`` at a time: at full resolution the dVAE's activations need 38 MB an image.

        Args:
            counts: number of True entries of each image.
        """
        codes = []
        for start in range(0, len(image_B3hw), CHUNK_SIZE):
            chunk = slice(start, start + CHUNK_SIZE)
            codes.append(self.chunk_codes_at(image_B3hw[chunk], mask_BP[chunk], sum(counts[chunk])))
        return torch.cat(codes)

    def chunk_codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, count: int) -> Tensor:
        """Return (N,) codes of a few images where the mask is True, N = ``count``."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Disable gradients and training mode; to be called when all parameters exist."""
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        # model.half() must not change the codes: device and memory format may change, dtypes may not
        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and fp32 values, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()
