"""The text encoder: BERT's embeddings and the same pre-norm blocks as in the image encoder (§3.1).

Shapes: B batch, T tokens, D width.
"""

import torch
from torch import Tensor, nn

from mmf_flava.config.model import TextEncoderConfig
from mmf_flava.models.transformer import EncodedViews, Queries, Transformer


class TextEncoder(Transformer):
    """Word, position and token-type embeddings (type 0 only), LayerNorm, and the blocks. [CLS] is token 0."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_length, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.embedding_dropout = nn.Dropout(config.dropout)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """Return (B, T, D): the sum of the embeddings after LayerNorm."""
        position = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        x = (
            self.word_embeddings(input_ids_BT)
            + self.position_embeddings(position)
            + self.token_type_embeddings.weight[0]
        )
        return self.embedding_dropout(self.embedding_norm(x))

    def forward(  # type: ignore[override]
        self, input_ids_BT: Tensor | tuple[Tensor, ...], mask_BT: Tensor | None = None, queries: Queries = None
    ) -> EncodedViews:
        """Encode tokens, (B, T, D); ``mask_BT`` is False on padding.

        Tuples of n token tensors and n ``queries`` return n views of the texts; see ``Transformer.forward``.
        """
        ids = torch.cat(input_ids_BT) if isinstance(input_ids_BT, tuple) else input_ids_BT
        return super().forward(self.embed(ids), mask_BT, queries)
