"""Analytical FLOP count of FLAVA for a batch.

Counts the matrix products of the forward and backward pass as the model executes them: the last block of an encoder is
computed only at the positions that a loss uses, and prediction heads only at masked positions. A multiplication and an
addition count as two operations. Padding tokens are counted. The codebook (its codes can be cached), LayerNorms and
other element-wise operations, the optimizer, and recomputation in attention are not counted. All weights are assumed to
be trained.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from mmf_flava.config.model import FlavaConfig, ImageEncoderConfig, TransformerConfig
from mmf_flava.data.masking import IGNORED

BACKWARD = 2  # matrix products in the backward pass per product in the forward pass: a gradient for each factor
HEADS = ("mmm_image", "mmm_text", "itm")


def batch_flops(config: FlavaConfig, needs: Collection[str], batch: Any, num_processes: int = 1) -> float:
    """Return the floating-point operations of the forward and backward pass of one batch.

    Args:
        config: ``model_config.flava``.
        needs: names of the outputs that the losses need (``FlavaPretraining.needs``).
        batch: collated batch on the CPU; its masks give the numbers of masked positions.
        num_processes: number of processes over which the contrastive loss gathers embeddings.
    """
    if "image" in batch and "input_ids" in batch:
        return _pair_flops(config, needs, batch, num_processes)
    if "image" in batch:
        return _image_flops(config, batch) if "mim" in needs else 0.0
    return _text_flops(config, batch) if "mlm" in needs else 0.0


def _pair_flops(config: FlavaConfig, needs: Collection[str], batch: Any, num_processes: int) -> float:
    clean, masked = "contrast" in needs, any(name in needs for name in HEADS)
    if not (clean or masked):
        return 0.0
    image, text, multimodal = config.image_encoder, config.text_encoder, config.multimodal_encoder
    size, patches = batch["image_patch_mask"].shape
    tokens = batch["input_ids"].shape[1]
    positive = batch["is_correct"].view(-1).bool()
    products = 0.0
    for encoder, length in ((image, 1 + patches), (text, tokens)):
        if clean:
            products += encoder_products(encoder, size, length, used=1)
        if masked:
            products += encoder_products(encoder, size, length, used=length)
    if clean:
        products += size * config.projection_size * (image.hidden_size + text.hidden_size)
        # image-to-text and text-to-image logits
        products += 2 * int(positive.sum()) * size * num_processes * config.projection_size
    if masked:
        masks = {"mmm_image": batch["image_patch_mask"], "mmm_text": batch["lm_label_ids"] != IGNORED}
        masks = {name: mask & positive[:, None] for name, mask in masks.items() if name in needs}
        used = 1 + torch.cat([positive.new_zeros(size, 1), *masks.values()], dim=1).sum(dim=1).max()  # 1 for [CLS_M]
        products += size * multimodal.hidden_size * ((1 + patches) * image.hidden_size + tokens * text.hidden_size)
        products += encoder_products(multimodal, size, 2 + patches + tokens, int(used))
        vocab_sizes = {"mmm_image": config.codebook.vocab_size, "mmm_text": text.vocab_size}
        products += sum(_head_products(multimodal.hidden_size, vocab_sizes[name], mask) for name, mask in masks.items())
        if "itm" in needs:
            products += size * multimodal.hidden_size * (multimodal.hidden_size + 2)
    return 2 * ((1 + BACKWARD) * products) + patch_embedding_flops(image, size * patches)


def _image_flops(config: FlavaConfig, batch: Any) -> float:
    mask, encoder = batch["image_patch_mask"], config.image_encoder
    size, patches = mask.shape
    products = encoder_products(encoder, size, 1 + patches, _num_positions(mask))
    products += _head_products(encoder.hidden_size, config.codebook.vocab_size, mask)
    return 2 * ((1 + BACKWARD) * products) + patch_embedding_flops(encoder, size * patches)


def _text_flops(config: FlavaConfig, batch: Any) -> float:
    mask, encoder = batch["lm_label_ids"] != IGNORED, config.text_encoder
    size, tokens = mask.shape
    products = encoder_products(encoder, size, tokens, _num_positions(mask))
    return 2 * (1 + BACKWARD) * (products + _head_products(encoder.hidden_size, encoder.vocab_size, mask))


def encoder_products(config: TransformerConfig, batch: int, length: int, used: int) -> float:
    """Return the number of multiplications of an encoder's forward pass.

    The last block computes queries, output projection and MLP only at ``used`` positions.
    """
    full_blocks = _block_products(config, length, length) * (config.num_layers - 1)
    return batch * (full_blocks + _block_products(config, length, used))


def _block_products(config: TransformerConfig, length: int, used: int) -> float:
    width = config.hidden_size
    key_value, query_projection = 2 * length * width * width, 2 * used * width * width
    attention, mlp = 2 * used * length * width, 2 * used * width * config.mlp_size
    return key_value + query_projection + attention + mlp


def _head_products(width: int, vocab_size: int, mask: Tensor) -> float:
    return int(mask.sum()) * width * (width + vocab_size)


def patch_embedding_flops(config: ImageEncoderConfig, patches: int) -> float:
    """Return the FLOPs of the patch embedding in the forward and backward pass. The pixels need no gradient."""
    return 2 * 2 * patches * 3 * config.patch_size**2 * config.hidden_size


def _num_positions(mask: Tensor) -> int:
    """Return the number of positions per sequence at which ``models/last_block.py`` computes the last block."""
    return max(int(mask.sum(dim=1).max()), 1)
