"""A small FLAVA with 8 hidden dimensions, its three kinds of batches, and an updater."""

import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the losses
from mmf_flava.config.model import (
    LOSSES,
    CodebookConfig,
    FlavaConfig,
    ImageEncoderConfig,
    LossConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
)
from mmf_flava.config.run import TrainingConfig
from mmf_flava.models.pretraining import FlavaPretraining
from mmf_flava.training.update import Updater
from tests.models.conftest import sample_list

SIZE = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "mlp_size": 16}
SAMPLES = 6
FIELDS = {
    "pmd": ("image", "image_codes", "image_patch_mask", "input_ids", "input_ids_masked", "lm_label_ids", "input_mask"),
    "imagenet": ("image", "image_codes", "image_patch_mask"),
    "ccnews_bookcorpus": ("input_ids", "input_ids_masked", "lm_label_ids", "input_mask"),
}


def build_toy(model):
    """Build a model and its losses as MMF does, with large random weights."""
    model.build()
    model.init_losses()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def toy(weights=None, losses=LOSSES) -> FlavaPretraining:
    """Build the model, always with the same weights; [CLS] and position embeddings are not zero because of fp16."""
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    torch.manual_seed(0)
    config = FlavaConfig(
        image_encoder=ImageEncoderConfig(**SIZE, image_size=4, patch_size=2),
        text_encoder=TextEncoderConfig(**SIZE, vocab_size=11, max_length=6),
        multimodal_encoder=MultimodalEncoderConfig(**SIZE),
        projection_size=4,
        codebook=CodebookConfig(vocab_size=5),
        losses=[LossConfig(name, 1.0) for name in losses],
    )
    model = build_toy(FlavaPretraining(OmegaConf.structured(config)))
    if weights is not None:
        model.load_state_dict(weights)
    return model


def batch(kind: str, number: int = 0, rows: slice = slice(None)):
    """Return batch ``number`` of a kind, or some of its six samples; the last pair does not match."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(5, 11, (SAMPLES, 5), generator=generator)
    masked = torch.rand(SAMPLES, 5, generator=generator) < 0.4
    fields = {
        "image": torch.randn(SAMPLES, 3, 4, 4, generator=generator),
        "image_codes": torch.randint(0, 5, (SAMPLES, 4), generator=generator),
        "image_patch_mask": torch.rand(SAMPLES, 4, generator=generator) < 0.5,
        "input_ids": ids,
        "input_ids_masked": ids.masked_fill(masked, 3),
        "lm_label_ids": ids.masked_fill(~masked, -1),
        "input_mask": torch.arange(5) < torch.randint(3, 6, (SAMPLES, 1), generator=generator),
    }
    fields = {name: value[rows] for name, value in fields.items() if name in FIELDS[kind]}
    if kind == "pmd":
        fields["is_correct"] = torch.tensor([1, 1, 1, 1, 1, 0])[rows]
    return sample_list(kind, **fields)


def updater(
    model, optimizer="AdamW", clip=None, scheduler=None, lr=0.01, params=None, mode="all", **training
) -> Updater:
    """Build an Updater of ``model`` with these options.

    Args:
        params: further options of the optimizer.
        mode: ``training.clip_norm_mode``.
    """
    params = {"lr": lr} | ({"momentum": 0.9} if optimizer == "SGD" else {}) | (params or {})
    section = {"clip_gradients": clip is not None, "clip_norm_mode": mode, "max_updates": 12}
    config = {
        "training": {**section, "lr_scheduler": scheduler is not None},
        "optimizer": {"type": optimizer, "params": params},
        "scheduler": scheduler,
    }
    settings = TrainingConfig(max_grad_l2_norm=clip, **training)
    return Updater(model, OmegaConf.create(config), settings, torch.device("cpu"))
