"""How many floating-point operations FLAVA spends on a batch, counted from its sizes.

Counted are the matrix products of forward and backward, a multiplication and an addition as two, as the model runs
them: the last block of an encoder at the positions that somebody reads, heads at masked positions. Not counted are the
codebook (whose codes may as well be cached), LayerNorms and other work on single numbers, the optimizer, and what
attention computes twice to save memory. Padding is computed, hence counted. All weights are taken to be trained.

Shapes: B batch, P patches, T tokens, L sequence, Q positions read, N masked positions, D width.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from mmf_flava.config.model import FlavaConfig, ImageEncoderConfig, TransformerConfig
from mmf_flava.data.masking import IGNORED

BACKWARD = 2  # for each product of the forward pass, one for the gradient of either factor
HEADS = ("mmm_image", "mmm_text", "itm")


def batch_flops(config: FlavaConfig, needs: Collection[str], batch: Any, others: int = 1) -> float:
    """Floating-point operations of one batch, forward and backward.

    Args:
        config: ``model_config.flava``.
        needs: what the losses are computed from, ``FlavaPretraining.needs``.
        batch: as the datasets' collate makes it; keep it on the CPU, as its masks are counted.
        others: processes whose batches the contrastive loss compares this one with, itself among them.
    """
    if "image" in batch and "input_ids" in batch:
        return _pair(config, needs, batch, others)
    if "image" in batch:
        return _image(config, batch) if "mim" in needs else 0.0
    return _text(config, batch) if "mlm" in needs else 0.0


def _pair(config: FlavaConfig, needs: Collection[str], batch: Any, others: int) -> float:
    clean, masked = "contrast" in needs, any(name in needs for name in HEADS)
    if not (clean or masked):
        return 0.0
    image, text, both = config.image_encoder, config.text_encoder, config.multimodal_encoder
    size, patches = batch["image_patch_mask"].shape
    tokens = batch["input_ids"].shape[1]
    positive = batch["is_correct"].view(-1).bool()
    products = 0.0
    for encoder, length in ((image, 1 + patches), (text, tokens)):
        if clean:
            products += _encoder(encoder, size, length, read=1)
        if masked:
            products += _encoder(encoder, size, length, read=length)
    if clean:
        products += size * config.projection_size * (image.hidden_size + text.hidden_size)
        products += 2 * int(positive.sum()) * size * others * config.projection_size  # image by text, and text by image
    if masked:
        hidden = {"mmm_image": batch["image_patch_mask"], "mmm_text": batch["lm_label_ids"] != IGNORED}
        hidden = {name: mask & positive[:, None] for name, mask in hidden.items() if name in needs}
        read = 1 + torch.cat([positive.new_zeros(size, 1), *hidden.values()], dim=1).sum(dim=1).max()  # 1 is [CLS_M]
        products += size * both.hidden_size * ((1 + patches) * image.hidden_size + tokens * text.hidden_size)
        products += _encoder(both, size, 2 + patches + tokens, int(read))
        vocabularies = {"mmm_image": config.codebook.vocab_size, "mmm_text": text.vocab_size}
        products += sum(_head(both.hidden_size, vocabularies[name], mask) for name, mask in hidden.items())
        if "itm" in needs:
            products += size * both.hidden_size * (both.hidden_size + 2)
    return 2 * ((1 + BACKWARD) * products) + _embedding(image, size * patches)


def _image(config: FlavaConfig, batch: Any) -> float:
    mask, encoder = batch["image_patch_mask"], config.image_encoder
    size, patches = mask.shape
    products = _encoder(encoder, size, 1 + patches, _most(mask))
    products += _head(encoder.hidden_size, config.codebook.vocab_size, mask)
    return 2 * ((1 + BACKWARD) * products) + _embedding(encoder, size * patches)


def _text(config: FlavaConfig, batch: Any) -> float:
    mask, encoder = batch["lm_label_ids"] != IGNORED, config.text_encoder
    size, tokens = mask.shape
    products = _encoder(encoder, size, tokens, _most(mask))
    return 2 * (1 + BACKWARD) * (products + _head(encoder.hidden_size, encoder.vocab_size, mask))


def _encoder(config: TransformerConfig, batch: int, length: int, read: int) -> float:
    """Multiplications of a forward pass, the last block's queries, projection and MLP at ``read`` positions only."""
    whole = _block(config, length, length) * (config.num_layers - 1)
    return batch * (whole + _block(config, length, read))


def _block(config: TransformerConfig, length: int, read: int) -> float:
    width = config.hidden_size
    key_value, query_projection = 2 * length * width * width, 2 * read * width * width
    attention, mlp = 2 * read * length * width, 2 * read * width * config.mlp_size
    return key_value + query_projection + attention + mlp


def _head(width: int, vocabulary: int, mask: Tensor) -> float:
    return int(mask.sum()) * width * (width + vocabulary)


def _embedding(config: ImageEncoderConfig, patches: int) -> float:
    """Operations of forward and backward; pixels need no gradient."""
    return 2 * 2 * patches * 3 * config.patch_size**2 * config.hidden_size


def _most(mask: Tensor) -> int:
    """See ``Positions.of``."""
    return max(int(mask.sum(dim=1).max()), 1)
