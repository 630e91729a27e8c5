"""The text encoder: BERT's embeddings before the same pre-norm blocks as the image encoder (§3.1).

Shapes: B batch, T tokens, D width.
"""

import torch
from torch import Tensor, nn

from mmf_flava.config.model import TextEncoderConfig
from mmf_flava.models.transformer import EncodedViews, Read, Transformer


class TextEncoder(Transformer):
    """Word, position and (always zero) token-type embeddings, LayerNorm, then the blocks. [CLS] is token 0."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_length, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.embedding_dropout = nn.Dropout(config.dropout)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T, D): the sum of the embeddings after its LayerNorm."""
        position = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        x = (
            self.word_embeddings(input_ids_BT)
            + self.position_embeddings(position)
            + self.token_type_embeddings.weight[0]
        )
        return self.embedding_dropout(self.embedding_norm(x))

    def forward(  # type: ignore[override]
        self, input_ids_BT: Tensor | tuple[Tensor, ...], mask_BT: Tensor | None = None, read: Read = None
    ) -> EncodedViews:
        """Encodes tokens, (B, T, D); ``mask_BT`` is False on padding.

        Tuples of tokens and of what is ``read`` ask for as many views of the texts; see ``Transformer``.
        """
        ids = torch.cat(input_ids_BT) if isinstance(input_ids_BT, tuple) else input_ids_BT
        return super().forward(self.embed(ids), mask_BT, read)
