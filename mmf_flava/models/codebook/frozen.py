"""Base class of image codebooks, which are not trained.

Shapes: B = batch size, h x w = image size of the codebook's input, P = number of patches, N = number of masked
patches.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

CHUNK_SIZE = 64  # maximum number of images that a codebook encodes at a time


class Frozen(nn.Module):
    """A module without gradients that stays in eval mode and keeps its dtype, even if the model is cast to fp16.

    sha256: hash of the weights (see ``weights_sha256``), or None before they are loaded.
    """

    sha256: str | None = None

    @torch.no_grad()
    def codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the (N,) codes of masked patches.

        Images are encoded in chunks of ``CHUNK_SIZE`` to limit memory: the dVAE's activations take 52 MB per image.

        Args:
            mask_BP: True at masked patches.
            counts: number of masked patches per image.
        """
        codes = []
        for start in range(0, len(image_B3hw), CHUNK_SIZE):
            chunk = slice(start, start + CHUNK_SIZE)
            codes.append(self.chunk_codes_at(image_B3hw[chunk], mask_BP[chunk], sum(counts[chunk])))
        return torch.cat(codes)

    def chunk_codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, count: int) -> Tensor:
        """Return the (N,) codes of masked patches for a chunk of images, N = ``count``."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Disable gradients and training mode. Subclasses call this after creating all parameters."""
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
    """Return a SHA-256 hash of the tensors' names, shapes and fp32 values, which is the same for all file formats."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()
