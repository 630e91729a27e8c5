"""Dataclasses of the losses' inputs. The model returns them in a dict; ``needs`` of a loss is the key of its input.

Shapes: B = batch size, M = number of matching pairs, N = number of masked positions, V = vocabulary size,
E = projection size.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Contrast:
    """Inputs of the contrastive loss.

    image, text: (B, E) embeddings with unit length.
    temperature: () exponential of the logit scale; the cosine similarities are multiplied by it.
    positive: (M,) int, indices of matching pairs in the batch.
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
    """Inputs of the image-text matching loss.

    logits: (B, 2); labels: (B,) int, 1 for matching pairs, else 0.
    """

    logits: Tensor
    labels: Tensor
