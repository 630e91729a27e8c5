"""The model ``flava_dino``: its loss, centre and teacher by hand, its evaluation, and invalid keys and batches."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch.nn.functional import log_softmax, softmax

from mmf_flava.compat import mmf_api
from mmf_flava.config.dino import DinoConfig, TeacherMomentumConfig, TeacherTemperatureConfig
from mmf_flava.config.model import ImageEncoderConfig, LossConfig
from mmf_flava.config.recipes import recipe_path
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError
from mmf_flava.models.dino.pretraining import FlavaDino
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.weights.encoders import load_image_encoder
from tests.models.conftest import sample_list
from tests.models.dino.toys import crops, dino
from tests.training.toys import updater

LOSS = "train/imagenet/flava_dino"


def started(update=0, total=8, per_epoch=2, **settings):
    model = dino(**settings).train()
    model.plan_updates(total, per_epoch)
    model.start_update(update)
    return model


def network_outputs(network, batch, names):
    """Return the (number of crops, B, K) outputs, one crop at a time."""
    images = [batch[name][:, number] for name in names for number in range(batch[name].shape[1])]
    return torch.stack([network.head(network.encoder(image).cls) for image in images])


@pytest.mark.parametrize("num_local", [0, 1, 3])
def test_the_loss_is_that_of_the_crops_of_each_image(num_local):
    model, batch = started(2, teacher_temperature=TeacherTemperatureConfig(0.1, 0.3, 3)), crops(1, num_local=num_local)
    model.center.normal_()
    student = network_outputs(model.student, batch, ["crops_global", *["crops_local"] * bool(num_local)])
    teacher = network_outputs(model.teacher, batch, ["crops_global"])
    targets = softmax((teacher - model.center) / 0.2, dim=-1)  # update 2 is in epoch 1
    terms = [
        -(targets[i] * log_softmax(student[j] / 0.1, dim=-1)).sum(-1).mean()
        for i in range(2)
        for j in range(2 + num_local)
        if i != j
    ]
    torch.testing.assert_close(model(batch)["losses"][LOSS].squeeze(), torch.stack(terms).mean())


def test_the_centre_and_the_teacher_after_a_step_by_hand():
    model = started(2, total=4, center_momentum=0.75, teacher_momentum=TeacherMomentumConfig(0.5, 1.0))
    model.center.fill_(2.0)
    batches = [crops(1), crops(2)]
    for batch in batches:
        model(batch)
    outputs = torch.cat([network_outputs(model.teacher, batch, ["crops_global"]) for batch in batches])
    expected_center = 0.75 * 2.0 + 0.25 * outputs.flatten(0, 1).mean(dim=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.after_step(dict(model.named_parameters()))
    torch.testing.assert_close(model.center[0], expected_center)
    for name, value in model.teacher.state_dict().items():
        expected = 0.75 * before[f"teacher.{name}"] + 0.25 * before[f"student.{name}"]  # cosine: half way at update 2
        torch.testing.assert_close(value, expected)
    statistics = model.output_statistics()
    assert 0 < statistics["teacher_entropy"] <= statistics["teacher_mean_entropy"] <= math.log(10)


def test_a_skipped_update_leaves_nothing_behind():
    trained, other = (updater(dino(), optimizer="SGD", lr=0.1) for _ in range(2))
    trained.accumulate(crops(1))
    trained.discard()
    for each in (trained, other):
        each.accumulate(crops(2))
        assert each.step()
    assert all(torch.equal(value, other.model_state()[name]) for name, value in trained.model_state().items())
    assert trained.model_state()["center"].abs().max() > 1e-3


def test_an_evaluation_changes_nothing_and_uses_the_last_temperature():
    model = started(teacher_temperature=TeacherTemperatureConfig(0.1, 0.3, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    first = model(crops(1))["losses"][LOSS]
    model.train().start_update(7)
    assert model._schedule.temperature(7) == 0.3
    torch.testing.assert_close(model(crops(1))["losses"][LOSS], first)
    model.start_update(0)
    assert (model(crops(1))["losses"][LOSS] - first).abs() > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dino().eval()(crops(1))["losses"][LOSS].isfinite()  # without plan_updates


def test_only_the_student_has_drop_path_and_gradients():
    model = dino(encoder=parse_section(type(DinoConfig().image_encoder), ENCODER_SECTION, "image_encoder")).train()
    assert model.student.encoder.blocks[1].drop_path1.drop_prob == 0.5
    assert not model.teacher.training and model.student.training
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    groups = model.get_optimizer_parameters(None)
    trained = sum(len(group["params"]) for group in groups)
    assert trained == len([*model.student.parameters()])
    assert all(parameter.ndim == 1 for parameter in groups[1]["params"])
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])


ENCODER_SECTION = {
    "hidden_size": 8, "num_layers": 2, "num_heads": 2, "mlp_size": 16, "image_size": 8, "patch_size": 2,
    "drop_path": 0.5, "dropout": 0.1,
}  # fmt: skip


def test_student_and_teacher_start_with_the_same_weights():
    model = FlavaDino(OmegaConf.structured(dino().settings))
    model.build()
    teacher = model.teacher.state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in model.student.state_dict().items())
    assert not model.center.any()


@pytest.mark.parametrize(("update", "fixed"), [(0, True), (3, True), (4, False)])
def test_the_last_layer_is_fixed_in_the_first_epochs(update, fixed):
    expected = ["student.head.last_layer.weight_v"] if fixed else []
    assert started(update, freeze_last_layer=2).fixed_parameters() == expected
    assert dino().fixed_parameters() == []


@pytest.mark.parametrize("case", ["one image", "equal images"])
def test_small_and_equal_batches_have_finite_losses_and_gradients(case):
    batch = crops(1, samples=1)
    if case == "equal images":
        batch = sample_list("imagenet", crops_global=torch.full((4, 2, 3, 8, 8), 0.5))
    model = started(per_epoch=1, update=5)
    (loss,) = model(batch)["losses"].values()
    loss.backward()
    assert loss.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.student.parameters())
    model.after_step(dict(model.named_parameters()))
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if case == "equal images":
        assert model.output_statistics()["teacher_information"] == pytest.approx(0, abs=1e-5)


def test_features_attention_and_weights_are_those_of_the_teacher(tmp_path):
    model, image = dino().eval(), crops(1)["crops_global"][:, 0]
    features = model.image_features(image)
    torch.testing.assert_close(features, model.teacher.encoder(image).cls)
    assert (features - model.student.encoder(image).cls).abs().max() > 1e-2
    assert model.image_attention(image).shape == (4, 2, 4, 4)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata=model.metadata())
    encoder = ImageEncoder(ImageEncoderConfig(8, 2, 2, 16, image_size=8, patch_size=2, layer_norm_eps=1e-6))
    load_image_encoder(encoder, tmp_path)
    torch.testing.assert_close(encoder.eval()(image).cls, features)
    assert json.loads(model.metadata()["flava_dino_config"])["head"]["out_dim"] == 10


def test_pretrained_weights_are_loaded_into_student_and_teacher(tmp_path):
    source = ImageEncoder(ImageEncoderConfig(8, 2, 2, 16, image_size=8, patch_size=2))
    torch.nn.init.normal_(source.pos_embed)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    model = dino()
    assert model.load_pretrained([], [], None) == []
    model.settings.image_encoder.pretrained = str(tmp_path)
    (message,) = model.load_pretrained([], [], None)
    assert str(tmp_path) in message
    for network in (model.student, model.teacher):
        assert torch.equal(network.encoder.pos_embed, source.pos_embed)
    assert torch.equal(model.student.head.mlp[0].weight, model.teacher.head.mlp[0].weight)


def test_flops_by_hand():
    """The matrix products of blocks, head and patch embedding per crop; training costs three forward passes."""
    model = dino()
    key_value = lambda length: 2 * length * 8 * 8  # noqa: E731

    def forward(length, patches):
        full = key_value(length) + 2 * length * 64 + 2 * length * length * 8 + 2 * length * 8 * 16
        last = key_value(length) + 2 * 64 + 2 * length * 8 + 2 * 8 * 16
        head = 8 * 12 + 12 * 12 + 12 * 6 + 6 * 10
        return 2 * (full + last + head), 2 * patches * 3 * 4 * 8

    large, embed_large = forward(17, 16)
    small, embed_small = forward(5, 4)
    expected = 8 * (4 * large + 3 * embed_large) + 8 * (3 * small + 2 * embed_small)
    assert model.batch_flops(crops(1), 1) == expected


@pytest.mark.parametrize(("total", "frozen"), [(30, True), (31, False)])
def test_a_run_that_never_trains_the_last_layer_is_named(monkeypatch, total, frozen):
    """Three epochs of ten updates."""
    messages = []
    monkeypatch.setattr(mmf_api, "log", messages.append)
    dino(freeze_last_layer=3).plan_updates(total, 10)
    assert [message for message in messages if "freeze_last_layer: the run has" in message] == messages
    assert bool(messages) == frozen


def test_values_of_the_loss_are_counted_per_image():
    assert dino().loss_counts(crops(1)) == {"flava_dino": 4}


def test_batches_without_crops_and_other_trainers_raise():
    model = started()
    with pytest.raises(UserError, match=r"'imagenet' have no crops_global.*flava_multicrop"):
        model(sample_list("imagenet", image=torch.zeros(1, 3, 8, 8)))
    with pytest.raises(UserError, match=r"have no crops_global.*Otherwise, remove it from the key dataset"):
        model.loss_counts(sample_list("ccnews_bookcorpus", input_ids=torch.zeros(1, 3)))  # called before forward
    with pytest.raises(UserError, match=r"training\.trainer: flava"):
        dino().train()(crops(1))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["flava_dinoo"], r"losses: unknown loss 'flava_dinoo'.*'flava_dino'"),
        (["flava_mim"], r"flava_mim does not have the class attribute needs = 'dino'"),
    ],
)
def test_invalid_losses_raise(losses, message):
    with pytest.raises(UserError, match=message):
        dino(losses=[LossConfig(name) for name in losses])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"head": {"out_dim": 1}}, r"flava_dino\.head\.out_dim: must be at least 2"),
        ({"teacher_momentum": {"first": 0.9, "last": 0.8}}, r"teacher_momentum\.last: 0\.8 is below first 0\.9"),
        ({"teacher_temperature": {"first": 0}}, r"teacher_temperature\.first: must be above 0"),
        (
            {"image_encoder": {"position_interpolation": "bicubic"}},
            r"position_interpolation: must be one of flava, dino",
        ),
        ({"losses": [{"type": "flava_dino"}] * 2}, r"flava_dino is listed 2 times"),
        ({"heads": {}}, r"'heads' is not a key of model_config\.flava_dino.*'head'"),
    ],
)
def test_invalid_keys_raise(section, message):
    with pytest.raises(UserError, match=message):
        parse_section(DinoConfig, section, "model_config.flava_dino")


def test_the_defaults_are_those_of_the_recipe():
    section = yaml.safe_load(Path(recipe_path("models/dino_base")).read_text())["model_config"]["flava_dino"]
    assert parse_section(DinoConfig, section, "model_config.flava_dino") == DinoConfig()
