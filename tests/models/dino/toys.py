"""A small DINO, always with the same weights, and its batches."""

from dataclasses import replace

import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the loss
from mmf_flava.config.dino import DinoConfig, DinoEncoderConfig, DinoHeadConfig
from mmf_flava.models.dino.pretraining import FlavaDino
from tests.models.conftest import sample_list

SAMPLES = 4
ENCODER = DinoEncoderConfig(8, 2, 2, 16, drop_path=0.0, image_size=8, patch_size=2)
HEAD = DinoHeadConfig(hidden_size=12, bottleneck_size=6, out_dim=10)


def dino(weights=None, head=HEAD, encoder=ENCODER, **settings) -> FlavaDino:
    """Build the model as MMF does. Its weights are large, and the teacher's differ from the student's."""
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    torch.manual_seed(0)
    model = FlavaDino(OmegaConf.structured(DinoConfig(image_encoder=replace(encoder), head=replace(head), **settings)))
    model.build()
    model.init_losses()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    if weights is not None:
        model.load_state_dict(weights)
    return model


def crops(number: int = 0, rows: slice = slice(None), num_local: int = 2, samples: int = SAMPLES):
    """Return batch ``number``, or some of its samples: two global crops, and local crops of half their size."""
    generator = torch.Generator().manual_seed(number)
    fields = {"crops_global": torch.randn(samples, 2, 3, 8, 8, generator=generator)[rows]}
    if num_local:
        fields["crops_local"] = torch.randn(samples, num_local, 3, 4, 4, generator=generator)[rows]
    return sample_list("imagenet", **fields)
