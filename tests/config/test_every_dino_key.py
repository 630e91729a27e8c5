"""Every key of ``model_config.flava_dino`` has an effect: another value changes the model that is built from it."""

import dataclasses

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the loss
from mmf_flava.config.dino import DinoConfig, DinoEncoderConfig
from mmf_flava.models.dino.pretraining import FlavaDino
from tests.config.test_every_key import IMAGE, TRANSFORMER
from tests.models.dino.toys import ENCODER, HEAD, crops

ENCODER_PROBES = {
    f"image_encoder.{key}": (value, lambda model, probe=probe: probe(model.student.encoder))
    for key, (value, probe) in (TRANSFORMER | IMAGE).items()
} | {"image_encoder.position_interpolation": ("flava", lambda model: model.student.encoder.position_interpolation)}
PROBES = ENCODER_PROBES | {
    "image_encoder.drop_path": (
        0.25,
        lambda model: getattr(model.student.encoder.blocks[-1].drop_path2, "drop_prob", 0.0),
    ),
    "image_encoder.pretrained": ("weights", lambda model: model.settings.image_encoder.pretrained),
    "head.hidden_size": (9, lambda model: model.student.head.mlp[0].out_features),
    "head.bottleneck_size": (5, lambda model: model.teacher.head.mlp[4].out_features),
    "head.out_dim": (7, lambda model: model.center.shape[1]),
    "head.norm_last_layer": (False, lambda model: model.student.head.last_layer.weight_g is None),
    "initializer_range": (0.5, lambda model: round(model.student.encoder.blocks[0].mlp.fc1.weight.std().item(), 1)),
    "student_temperature": (0.5, lambda model: student_temperature(model)),
    "teacher_temperature.first": (0.05, lambda model: model._schedule.temperature(0)),
    "teacher_temperature.last": (0.06, lambda model: model._schedule.temperature(99)),
    "teacher_temperature.warmup_epochs": (0, lambda model: 0 if model._schedule.temperature(0) == 0.07 else 50),
    "teacher_momentum.first": (0.9, lambda model: model._schedule.momentum(0)),
    "teacher_momentum.last": (0.999, lambda model: model._schedule.momentum(100)),
    "center_momentum": (0.5, lambda model: center_momentum(model)),
    "freeze_last_layer": (0, lambda model: len(model.fixed_parameters())),
    "losses": (
        [{"type": "flava_dino", "weight": 2.0, "params": {}}],
        lambda model: [dataclasses.asdict(loss) for loss in model.settings.losses if weight(model) == loss.weight],
    ),
}


def build(path=None, value=None) -> FlavaDino:
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    torch.manual_seed(0)
    config = OmegaConf.create(dataclasses.asdict(DinoConfig(image_encoder=ENCODER, head=HEAD)))
    if path is not None:
        OmegaConf.update(config, path, value)
    model = FlavaDino(config)
    model.build()
    model.init_losses()
    model.plan_updates(100, 1)
    model.start_update(0)
    return model


def student_temperature(model):
    batch = crops(1, num_local=0)
    cosines = model.eval().student([batch["crops_global"].transpose(0, 1).flatten(0, 1)])
    return (cosines / model(batch)["dino"].student.flatten(0, 1)).mean().item()


def center_momentum(model):
    model.center.fill_(100.0)
    model.train()(crops(1))
    model.after_step(dict(model.named_parameters()))
    return round(model.center.mean().item() / 100, 1)


def weight(model):
    model.eval()
    (weighted,), dino = model(crops(1))["losses"].values(), model(crops(1))["dino"]
    return round((weighted / model.losses[0].loss_criterion({}, {"dino": dino})).item(), 3)


def leaves(config, prefix=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        yield from leaves(value, f"{prefix}{field.name}.") if dataclasses.is_dataclass(value) else [prefix + field.name]


def test_every_key_has_a_probe():
    assert {*leaves(DinoConfig())} == PROBES.keys()
    assert {field.name for field in dataclasses.fields(DinoEncoderConfig)} == {
        key.removeprefix("image_encoder.") for key in PROBES if key.startswith("image_encoder.")
    }


@pytest.mark.parametrize("key", PROBES)
def test_another_value_changes_the_model(key):
    value, probe = PROBES[key]
    assert probe(build(key, value)) == (pytest.approx(value) if isinstance(value, float) else value)
    assert probe(build()) != value
