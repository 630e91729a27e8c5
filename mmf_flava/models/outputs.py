"""Inputs of the losses. The model returns them in a dict; the attribute ``needs`` of a loss is the key of its input.

Shapes: B = batch size, M = number of matching pairs, N = number of masked positions, V = vocabulary size,
E = projection size, C = number of crops of an image, K = number of outputs of DINO's head.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Contrast:
    """Inputs of the contrastive loss.

    image, text: (B, projection size) embeddings of unit length.
    temperature: scalar, the exponential of the logit scale, which multiplies the cosine similarities.
    positive: 1-D int tensor of the indices of matching pairs in the batch.
    """

    image: Tensor
    text: Tensor
    temperature: Tensor
    positive: Tensor


@dataclass
class MaskedPrediction:
    """Inputs of a masked modeling loss, at the masked positions of matching pairs or unimodal samples.

    logits: (N, vocabulary size); labels: (N,) int; N = number of masked positions.
    """

    logits: Tensor
    labels: Tensor


@dataclass
class Matching:
    """Inputs of the image-text matching loss.

    logits: (B, 2); labels: (B,) int, 1 for matching pairs, 0 for other pairs.
    """

    logits: Tensor
    labels: Tensor


@dataclass
class Distillation:
    """Inputs of the self-distillation loss.

    student: (C, B, K) logits of all crops, divided by the student's temperature; global crops come first.
    teacher: (2, B, K) probabilities of the two global crops, without gradient.
    """

    student: Tensor
    teacher: Tensor
