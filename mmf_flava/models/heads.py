"""The pretraining heads.

Shapes: N selected positions, B batch, D width, V vocabulary.
"""

import torch
from torch import Tensor, nn


class MaskedPredictionHead(nn.Module):
    """BERT's transform and a decoder that is not tied to the embeddings, for MIM, MLM and both MMM losses (§3.2)."""

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.decoder = nn.Linear(width, vocab_size)

    def forward(self, states_ND: Tensor) -> Tensor:
        """Return (N, V) logits. Pass the masked positions only: the decoder is the widest layer of the model."""
        return self.decoder(self.norm(self.activation(self.dense(states_ND))))


class MatchingHead(nn.Module):
    """Image-text matching on [CLS_M]: BERT's pooler and two classes, 1 = the pair matches (§3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 2)

    def forward(self, cls_BD: Tensor) -> Tensor:
        """Return (B, 2) logits."""
        return self.classifier(torch.tanh(self.pooler(cls_BD)))
