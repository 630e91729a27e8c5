"""The pretraining heads (FLAVA paper, §3.2).

Shapes: N = number of masked positions, B = batch size, D = hidden size, V = vocabulary size.
"""

import torch
from torch import Tensor, nn


class MaskedPredictionHead(nn.Module):
    """BERT's prediction head with a decoder that is not tied to the embeddings; for MIM, MLM and MMM."""

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.decoder = nn.Linear(width, vocab_size)

    def forward(self, states_ND: Tensor) -> Tensor:
        """Return (N, vocabulary size) logits. Pass only masked positions: the decoder is the model's widest layer."""
        return self.decoder(self.norm(self.activation(self.dense(states_ND))))


class MatchingHead(nn.Module):
    """Image-text matching head on [CLS_M]: BERT's pooler and a binary classifier, class 1 = matching pair."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 2)

    def forward(self, cls_BD: Tensor) -> Tensor:
        """Return (B, 2) logits."""
        return self.classifier(torch.tanh(self.pooler(cls_BD)))
