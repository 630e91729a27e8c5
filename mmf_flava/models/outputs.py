"""Inputs of the losses in the model's output; a loss selects its entry with ``needs``.

Shapes: B batch, M matching pairs, N masked positions, V vocabulary, E projection.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Contrast:
    """Inputs of the contrastive loss.

    image, text: (B, E) embeddings with unit length.
    temperature: () factor of the logits.
    positive: (M,) int, indices of the matching pairs.
    """

    image: Tensor
    text: Tensor
    temperature: Tensor
    positive: Tensor


@dataclass
class MaskedPrediction:
    """Inputs of a masked modeling loss, at the masked positions of matching pairs or unimodal samples.

    logits: (N, V); labels: (N,) int.
    """

    logits: Tensor
    labels: Tensor


@dataclass
class Matching:
    """Inputs of image-text matching.

    logits: (B, 2); labels: (B,) int, 1 = the pair matches.
    """

    logits: Tensor
    labels: Tensor
