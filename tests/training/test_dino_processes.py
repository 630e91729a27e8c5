"""DINO on two gloo processes compared with one process, and the teacher in every precision.

With FSDP, the student's units run twice in each forward pass, once for each size of crops.
"""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from mmf_flava.config.dino import TeacherMomentumConfig
from tests.models.dino.toys import SAMPLES, crops, dino
from tests.processes import process_group, run_ranks
from tests.training.toys import updater

SHARDINGS = ("ddp", "fsdp")
UPDATES = 3


def build(weights=None, optimizer="SGD", lr=0.1, **training):
    model = dino(weights, teacher_momentum=TeacherMomentumConfig(0.5, 1.0), freeze_last_layer=1, center_momentum=0.5)
    trained = updater(model, optimizer=optimizer, lr=lr, **training)
    if training.get("precision") == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no update overflows
    return trained


def train(trained, first=0, last=UPDATES, rows=slice(None), frequency=1):
    """Train these updates and return the losses and the statistics of the teacher."""
    found = []
    for number in range(first, last):
        for step in range(frequency):
            losses = trained.accumulate(crops(frequency * number + step, rows), last=step == frequency - 1)
        assert trained.step()
        found.append([*losses.values()])
    return found, trained.engine.model.output_statistics()


def train_and_save(rows, **options):
    trained = build(**options)
    losses, statistics = train(trained, rows=rows)
    for (loss,) in losses:
        dist.all_reduce(loss)
        loss /= 2
    return {"losses": losses, "statistics": statistics, "weights": trained.model_state()}


def resume(rows, sharding, precision):
    """Train 2 + 2 updates, uninterrupted and resumed from the saved state."""
    options = {"optimizer": "AdamW", "lr": 0.01, "sharding": sharding, "precision": precision}
    uninterrupted = build(**options)
    train(uninterrupted, 0, 2, rows)
    saved = copy.deepcopy([uninterrupted.model_state(), uninterrupted.state_dict()])
    schedule = uninterrupted.schedule_state()
    train(uninterrupted, 2, 4, rows)
    dist.broadcast_object_list(saved)
    resumed = build(saved[0], **options)
    resumed.load_state_dict(saved[1])
    resumed.load_schedule_state(schedule)
    train(resumed, 2, 4, rows)
    return {"uninterrupted": uninterrupted.model_state(), "resumed": resumed.model_state()}


def load_other_weights(rows, folder, sharding):
    """Load the weights of another update, as the evaluation of the best checkpoint does, and return them."""
    trained, path = build(sharding=sharding), Path(folder, sharding)
    initial = copy.deepcopy(trained.model_state())
    if dist.get_rank() == 0:
        path.mkdir()
        save_file(initial, path / "model.safetensors")
    dist.barrier()
    train(trained, rows=rows)
    changed = copy.deepcopy(trained.model_state())
    trained.load_model_state(path)
    return {"initial": initial, "changed": changed, "loaded": trained.model_state()}


def features(rows, sharding):
    trained = build(sharding=sharding)
    train(trained, rows=rows)
    return trained.engine.evaluated.eval().image_features(crops(9)["crops_global"][:, 0])


def process(rank, folder):
    with process_group(rank, folder) as results:
        half = SAMPLES // 2
        rows = slice(half * rank, half * rank + half)
        for sharding in SHARDINGS:
            results[sharding] = train_and_save(rows, sharding=sharding)
            results[sharding, "checkpointing"] = train_and_save(rows, sharding=sharding, activation_checkpointing=True)
            accumulated = build(sharding=sharding)
            train(accumulated, 0, 2, rows, frequency=2)
            results[sharding, "accumulation"] = accumulated.model_state()
            results[sharding, "features"] = features(rows, sharding)
            results[sharding, "load"] = load_other_weights(rows, folder, sharding)
            for precision in ("fp32", "fp16", "bf16"):
                results[sharding, precision] = resume(rows, sharding, precision)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dino"))
    run_ranks(process, (folder,), 2)
    return torch.load(f"{folder}/results")


def largest(a, b):
    """Return the largest absolute difference of two state dicts."""
    assert a.keys() == b.keys()
    return max((a[key].float() - b[key].float()).abs().max().item() for key in a)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_three_updates_on_two_processes_equal_one_process(found, sharding):
    single = build()
    losses, statistics = train(single)
    for actual, expected in zip(found[sharding]["losses"], losses, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
    assert found[sharding]["statistics"] == pytest.approx(statistics, rel=1e-5, abs=1e-6)
    weights = single.model_state()
    assert {"student.encoder.cls_token", "teacher.encoder.cls_token", "center"} < weights.keys()
    assert largest(found[sharding]["weights"], weights) < 1e-6
    initial = dino().state_dict()
    for name in ("student.encoder.blocks.0.mlp.fc1.weight", "teacher.encoder.blocks.0.mlp.fc1.weight", "center"):
        assert (weights[name] - initial[name]).abs().max() > 1e-3
    for name in ("student.head.last_layer.weight_v", "teacher.head.last_layer.weight_v"):
        assert not torch.equal(weights[name], initial[name])


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_activation_checkpointing_changes_nothing(found, sharding):
    assert largest(found[sharding, "checkpointing"]["weights"], found[sharding]["weights"]) == 0


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_the_centre_and_the_gradients_are_those_of_all_batches_of_an_update(found, sharding):
    single = build()
    train(single, 0, 2, frequency=2)
    assert largest(found[sharding, "accumulation"], single.model_state()) < 1e-6


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_features_are_those_of_the_teacher(found, sharding):
    single = build()
    train(single)
    image = crops(9)["crops_global"][:, 0]
    expected = single.engine.model.teacher.encoder.eval()(image).cls
    torch.testing.assert_close(found[sharding, "features"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_weights_of_an_evaluation_include_the_teachers(found, sharding):
    states = found[sharding, "load"]
    assert largest(states["initial"], states["loaded"]) == 0
    assert largest(states["initial"], states["changed"]) > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_resumed_training_equals_uninterrupted_training(found, sharding, precision):
    states = found[sharding, precision]
    assert {value.dtype for value in states["resumed"].values()} == {torch.float32}
    assert largest(states["resumed"], states["uninterrupted"]) == 0
    assert largest(states["resumed"], dino().state_dict()) > 1e-2
