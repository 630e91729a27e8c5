"""Batches for this package and for the other implementations, with padding and a pair that does not match."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.models.conftest import sample_list

IGNORED = -1


@dataclass
class Batch:
    """Image-text pairs, with the fields and shapes of the datasets' batches."""

    image: Tensor
    image_codes: Tensor
    image_patch_mask: Tensor
    input_ids: Tensor
    input_ids_masked: Tensor
    lm_label_ids: Tensor
    input_mask: Tensor
    is_correct: Tensor

    def sample_list(self, kind: str = "pair"):
        """Return the batch as the datasets' collate function makes it: ``pair``, ``image`` or ``text``."""
        image = ("image", "image_codes", "image_patch_mask")
        text = ("input_ids", "input_ids_masked", "lm_label_ids", "input_mask")
        fields = {"pair": (*image, *text, "is_correct"), "image": image, "text": text}[kind]
        return sample_list("pmd", **{name: getattr(self, name).clone() for name in fields})


def make_batch(size: int, patch: int, words: int, codes: int, tokens: int, padded: bool, pairs: int = 3) -> Batch:
    """Return pairs of random images and texts, with different text lengths if ``padded``; the second does not match."""
    generator = torch.Generator().manual_seed(3)
    patches = (size // patch) ** 2
    integers = lambda low, high, *shape: torch.randint(low, high, shape, generator=generator)  # noqa: E731
    ids = integers(5, words, pairs, tokens)
    mask = torch.ones(pairs, tokens, dtype=torch.bool)
    if padded:
        lengths = [tokens - number * (tokens - 3) // pairs for number in range(pairs)]
        mask = torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]
        ids[~mask] = 0
    selected = (torch.rand(pairs, tokens, generator=generator) < 0.3) & mask
    selected[:, 1] = True
    return Batch(
        image=torch.randn(pairs, 3, size, size, generator=generator),
        image_codes=integers(0, codes, pairs, patches),
        image_patch_mask=torch.rand(pairs, patches, generator=generator) < 0.4,
        input_ids=ids,
        input_ids_masked=torch.where(selected, 4, ids),
        lm_label_ids=torch.where(selected, ids, IGNORED),
        input_mask=mask,
        is_correct=torch.tensor([1, 0, 1, 1])[:pairs],
    )


def randomise(model: torch.nn.Module) -> None:
    """Set all parameters to random values: those initialised with 0 or 1 would hide errors."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(2.0)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                # a standard deviation that keeps activations near 1 at every width, so that rounding errors stay small
                parameter.normal_(std=0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5, generator=generator)
