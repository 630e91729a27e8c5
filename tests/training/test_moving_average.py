"""Averages of the weights: by hand, exact when resumed, and swapped in for an evaluation."""

import math

import pytest
import torch
from safetensors.torch import load_file

from mmf_flava.config.ranges import check_ranges
from mmf_flava.config.run import EmaConfig
from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import GatheredState
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.moving_average import MovingAverage, momentum_at
from mmf_flava.weights.weight_files import AVERAGES
from tests.training.averaged_training import averaged, train, train_and_resume
from tests.training.toys import batch, toy, updater


def average(start=0, **momentum):
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(4.0)}
    config = EmaConfig(True, start=start, **momentum)
    return MovingAverage.of_run(weights, config, total=4)


def updates(averages, *values):
    found = []
    for number, value in enumerate(values):
        averages.update({"a": torch.tensor([value, 0.0]), "b": torch.tensor(value), "other": torch.zeros(9)}, number)
        found.append([*averages.averages["a"].tolist(), averages.averages["b"].item()])
    return found


def test_steps_with_constant_momentum_by_hand():
    assert updates(average(momentum=0.75), 5.0, 1.0) == [[2.0, 1.5, 4.25], [1.75, 1.125, 3.4375]]


def test_steps_with_cosine_momentum_by_hand():
    """The momenta of 4 updates from 0.5 to 1: 0.5, 0.75 - sqrt(2) / 8, 0.75, 0.75 + sqrt(2) / 8."""
    momenta = [momentum_at(update, 0.5, 1.0, 4) for update in range(6)]
    expected = [0.5, 0.75 - math.sqrt(2) / 8, 0.75, 0.75 + math.sqrt(2) / 8, 1.0, 1.0]
    assert momenta == pytest.approx(expected)
    first, second = updates(average(momentum=0.5, final_momentum=1.0), 5.0, 1.0)
    assert first == [3.0, 1.0, 4.5]
    assert second == pytest.approx([1 + 2 * expected[1], expected[1], 1 + 3.5 * expected[1]])


def test_averages_are_copies_before_the_start():
    found = updates(average(start=2, momentum=0.75), 5.0, 9.0, 1.0)
    assert found == [[5.0, 0.0, 5.0], [9.0, 0.0, 9.0], [7.0, 0.0, 7.0]]


def test_averages_of_a_teacher_are_stored_in_its_parameters():
    student, teacher = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1).requires_grad_(False)
    expected = 0.9 * teacher.weight + 0.1 * student.weight.detach()
    weights = dict(student.named_parameters())
    MovingAverage(weights, lambda update: 0.9, averages=dict(teacher.named_parameters())).update(weights, 0)
    assert torch.allclose(teacher.weight, expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_averages_are_those_of_fp32_weights_and_of_no_skipped_update(precision):
    trained = averaged(ema=EmaConfig(True, 0.75), precision=precision)
    expected = trained.model_state()["heads.itm.classifier.weight"].double()
    for number in range(2):
        if precision == "fp16":
            trained.precision.load_state_dict({"loss_scale": 2.0**40})
            trained.accumulate(batch("pmd", 9))
            assert not trained.step()
            trained.precision.load_state_dict({"loss_scale": 128.0})
        trained.accumulate(batch("pmd", 9))
        trained.discard()
        train(trained, 3 * number, 3 * number + 1)
        expected = 0.75 * expected + 0.25 * trained.model_state()["heads.itm.classifier.weight"].double()
    found = trained.average_state()["heads.itm.classifier.weight"]
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resumed_averages_are_exact_and_evaluations_change_nothing(precision, tmp_path):
    found = train_and_resume(tmp_path, precision=precision)
    uninterrupted, resumed = found["uninterrupted"], found["resumed"]
    for name, state in uninterrupted.items():
        assert all(torch.equal(state[key], resumed[name][key]) for key in state), name
    assert all(torch.equal(uninterrupted["restored"][key], value) for key, value in uninterrupted["weights"].items())
    model = toy(uninterrupted["averages"]).eval()
    embeddings = model.encode_image(batch("pmd")["image"])
    assert (embeddings - uninterrupted["embeddings"]["image"]).abs().max() < (1e-6 if precision == "fp32" else 5e-3)
    averages, weights = uninterrupted["averages"], uninterrupted["weights"]
    changed = {name for name in averages if not torch.equal(averages[name], weights[name])}
    assert {name.split(".")[0] for name in changed} == {"flava", "heads"}
    assert {name for name in changed if name.startswith("heads.")} <= {
        name for name in averages if "heads.mim." in name
    }


def test_evaluation_that_fails_restores_the_weights():
    trained = train(averaged(), 0, 4)
    before = {key: value.clone() for key, value in trained.model_state().items()}
    with pytest.raises(KeyError), trained.averaged(True):
        assert not torch.equal(
            trained.model_state()["flava.text_encoder.norm.weight"], before["flava.text_encoder.norm.weight"]
        )
        raise KeyError
    assert all(torch.equal(value, before[key]) for key, value in trained.model_state().items())


def test_checkpoint_contains_a_complete_weights_file(tmp_path):
    trained = train(averaged(), 0, 4)
    model, optimizer = GatheredState(trained.model_state(), {"model": "toy"}), GatheredState(trained.state_dict())
    path = CheckpointFolder(tmp_path).save(4, model, optimizer, {}, averages=trained.average_state())
    assert AVERAGES in (path / "checksums.sha256").read_text()
    saved = load_file(path / AVERAGES)
    assert saved.keys() == load_file(path / "model.safetensors").keys()
    assert all(torch.equal(value, saved[name]) for name, value in trained.average_state().items())
    other = averaged()
    other.load_model_state(path, averages=True)
    assert torch.equal(other.model_state()["heads.mim.decoder.bias"], saved["heads.mim.decoder.bias"])


def test_checkpoint_without_averages_starts_them_from_its_weights(tmp_path):
    plain = train(updater(toy()), 0, 2)
    trained = averaged(plain.model_state())
    trained.load_average_state(tmp_path)
    assert all(torch.equal(value, plain.model_state()[name]) for name, value in trained.average_state().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modules": ["flava.image_encodr"]}, r"no trained module .*Did you mean 'flava\.image_encoder'"),
        ({"modules": ["teacher"]}, r"training\.ema\.modules: .*'teacher'\. Known names: flava, flava\.image_encoder"),
        ({"momentum": 1.0}, r"ema\.momentum: must be at least 0 and below 1, got 1"),
        ({"momentum": 0.9, "final_momentum": 0.8}, r"ema\.final_momentum: 0\.8 is below momentum 0\.9"),
    ],
)
def test_invalid_keys_raise(values, message):
    config = EmaConfig(enabled=True, **values)
    with pytest.raises(UserError, match=message):
        check_ranges(config, "training.ema")
        averaged(ema=config)
