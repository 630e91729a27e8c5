"""The text encoder: BERT's embeddings and the same pre-norm blocks as in the image encoder (FLAVA paper, §3.1).

Shapes: B = batch size, T = number of tokens, D = hidden size.
"""

import torch
from torch import Tensor, nn

from mmf_flava.config.model import TextEncoderConfig
from mmf_flava.models.padding_mask import to_bool_mask
from mmf_flava.models.transformer import EncodedViews, Queries, Transformer


class TextEncoder(Transformer):
    """A pre-norm transformer with BERT's word, position and token-type (always 0) embeddings. [CLS] is position 0."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_length, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.embedding_dropout = nn.Dropout(config.dropout)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """Return the (B, T, D) sum of word, position and token-type embeddings after LayerNorm and dropout."""
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
        """Encode tokens to (B, T, D) states; ``mask_BT`` is False or 0 at padding.

        If ``input_ids_BT`` and ``queries`` are tuples of length n, n versions of the texts, e.g. unmasked and masked,
        are encoded, and a tuple of n outputs is returned; see ``Transformer.forward``.
        """
        ids = torch.cat(input_ids_BT) if isinstance(input_ids_BT, tuple) else input_ids_BT
        return super().forward(self.embed(ids), to_bool_mask(mask_BT), queries)
