"""FLAVA at full size or tiny, with random weights, for the parts that do not start ``mmf_run``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from batches import Batch, make_batch
from peers import build_pretraining
from torch import Tensor, nn

from device.context import Context
from mmf_flava.config.model import (
    LOSSES,
    FlavaConfig,
    ImageEncoderConfig,
    LossConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
)
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder

TINY = {"hidden_size": 48, "num_heads": 4, "mlp_size": 96}
TINY_LAYERS = (2, 2, 1)
PAIR_LOSSES = tuple(name for name in LOSSES if name not in ("flava_mim", "flava_mlm"))
Build = Callable[[], tuple[nn.Module, Callable[..., Tensor]]]


def flava_settings(
    context: Context,
    compiled: bool = False,
    layers: tuple[int, int, int] = (12, 12, 6),
    losses: Sequence[str] = LOSSES,
) -> FlavaConfig:
    """Return the configuration of flava_base, with the layers of the three encoders, or of a tiny model."""
    image, text, pair = context.pick(layers, TINY_LAYERS)
    sizes: dict[str, Any] = context.pick({}, TINY)
    settings = FlavaConfig(
        image_encoder=ImageEncoderConfig(num_layers=image, **sizes),
        text_encoder=TextEncoderConfig(num_layers=text, **sizes),
        multimodal_encoder=MultimodalEncoderConfig(num_layers=pair, **sizes),
        losses=[LossConfig(name) for name in losses],
        compile=compiled,
    )
    settings.projection_size = context.pick(settings.projection_size, TINY["hidden_size"])
    return settings


def build_batch(context: Context, size: int, tokens: int, caption: int | None = None, seed: int = 0) -> Batch:
    """Return a batch on the device; see ``batches.make_batch``."""
    return make_batch(size, tokens, caption, seed).to(torch.device(context.device))


def build_flava(context: Context, samples: Any, compiled: bool = False, codebook: str | None = None) -> Build:
    """Return a function that builds the model and a function of the loss.

    Args:
        samples: the default batch of the loss function.
        codebook: dtype of the dVAE; None: the batch has cached codes, or texts only.
    """

    def build() -> tuple[nn.Module, Callable[..., Tensor]]:
        settings = flava_settings(context, compiled)
        model: Any = build_pretraining(settings)
        if codebook is not None:
            sizes = context.pick({}, {"hidden_size": 8})
            vocabulary = settings.codebook.vocab_size
            model.codebook = DalleEncoder(vocabulary, dtype=codebook, channels_last=True, **sizes)
        return model, lambda batch=samples: total_loss(model(batch)["losses"])

    return build


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Return the sum of the losses' means."""
    return torch.stack([loss.mean() for loss in losses.values()]).sum()
