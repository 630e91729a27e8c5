"""The same batch for us and for the other implementations, with all that can go wrong in it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.models.conftest import sample_list

IGNORED = -1


@dataclass
class Batch:
    """Pairs; without padding, or with captions of different lengths. See the plan of the house for the shapes."""

    image: Tensor
    image_codes: Tensor
    image_patch_mask: Tensor
    input_ids: Tensor
    input_ids_masked: Tensor
    lm_label_ids: Tensor
    input_mask: Tensor
    is_correct: Tensor

    def ours(self, kind: str = "pair"):
        """The batch as our datasets' collate makes it: ``pair``, ``image`` or ``text``."""
        image = ("image", "image_codes", "image_patch_mask")
        text = ("input_ids", "input_ids_masked", "lm_label_ids", "input_mask")
        fields = {"pair": (*image, *text, "is_correct"), "image": image, "text": text}[kind]
        return sample_list("pmd", **{name: getattr(self, name).clone() for name in fields})


def make(size: int, patch: int, words: int, codes: int, tokens: int, padded: bool, pairs: int = 3) -> Batch:
    """Pairs of random images and texts; the second pair does not match."""
    generator = torch.Generator().manual_seed(3)
    patches = (size // patch) ** 2
    integers = lambda low, high, *shape: torch.randint(low, high, shape, generator=generator)  # noqa: E731
    ids = integers(5, words, pairs, tokens)
    mask = torch.ones(pairs, tokens, dtype=torch.bool)
    if padded:
        lengths = [tokens - number * (tokens - 3) // pairs for number in range(pairs)]
        mask = torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]
        ids[~mask] = 0
    chosen = (torch.rand(pairs, tokens, generator=generator) < 0.3) & mask
    chosen[:, 1] = True
    return Batch(
        image=torch.randn(pairs, 3, size, size, generator=generator),
        image_codes=integers(0, codes, pairs, patches),
        image_patch_mask=torch.rand(pairs, patches, generator=generator) < 0.4,
        input_ids=ids,
        input_ids_masked=torch.where(chosen, 4, ids),
        lm_label_ids=torch.where(chosen, ids, IGNORED),
        input_mask=mask,
        is_correct=torch.tensor([1, 0, 1, 1])[:pairs],
    )


def randomise(model: torch.nn.Module) -> None:
    """All parameters random: what starts at 0 or 1 (positions, biases, LayerNorms) would hide wrong wiring."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(2.0)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                # deviations that keep the numbers near 1 at every width: differences are then differences of wiring
                parameter.normal_(std=0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5, generator=generator)
