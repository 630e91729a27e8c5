"""What the model hands to the losses, by the name under which a loss asks for it (its ``needs``).

Shapes: B batch, N masked positions, V vocabulary, E projection.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Contrast:
    """image, text: (B, E) unit vectors; temperature: () factor of the logits; positive: (B,) bool, pairs that match."""

    image: Tensor
    text: Tensor
    temperature: Tensor
    positive: Tensor


@dataclass
class MaskedPrediction:
    """logits: (N, V) at the masked positions of matching pairs or unimodal samples; labels: (N,) int."""

    logits: Tensor
    labels: Tensor


@dataclass
class Matching:
    """logits: (B, 2); labels: (B,) int, 1 = the pair belongs together."""

    logits: Tensor
    labels: Tensor
