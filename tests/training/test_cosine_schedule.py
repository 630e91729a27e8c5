"""``scheduler.type: flava_cosine`` against DINO's formula in numpy, and by hand."""

import math

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch import nn

from mmf_flava.compat import mmf_api
from mmf_flava.errors import UserError
from mmf_flava.training.cosine_schedule import CosineSchedule, cosine_value
from mmf_flava.training.hyperparameters import advance, merge_groups, read_hyperparameters, saved_groups
from tests.training.test_hyperparameters import build, resume, saved, train

PARAMS = {"num_training_steps": 8, "num_warmup_steps": 3, "min_lr": 0.01, "weight_decay_end": 0.4}
COSINE = {"type": "flava_cosine", "params": PARAMS}


def optimizer(*decays: float, lr: float = 0.1) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "weight_decay": decay} for decay in decays]
    return torch.optim.AdamW(groups, lr=lr)


def values(scheduler: CosineSchedule, updates: int) -> list[list[tuple[float, float]]]:
    """Learning rate and weight decay of each group in each update."""
    found = []
    for _ in range(updates):
        found.append([(group["lr"], group["weight_decay"]) for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("total", [7, 1000, 3125])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
@pytest.mark.parametrize(("first", "last"), [(0.00075 * 1024 / 256, 2e-6), (0.04, 0.4), (0.996, 1.0), (0.0, 0.0)])
def test_values_equal_numpy_to_the_digit(total: int, warmup: int, first: float, last: float) -> None:
    updates = np.arange(total - warmup)
    cosine = last + 0.5 * (first - last) * (1 + np.cos(np.pi * updates / (total - warmup)))
    expected = [*np.linspace(0, first, warmup), *cosine]
    assert [cosine_value(update, first, last, total, warmup) for update in range(total)] == expected


def test_groups_by_hand() -> None:
    """Rate 0.1 to 0.01 after 3 updates of warm-up; only groups that are decayed have a schedule of the decay."""
    scheduler = CosineSchedule(optimizer(0.04, 0.0, 0.2), 7, 3, min_lr=0.01, weight_decay_end=0.4)
    assert scheduler.weight_decay == pytest.approx(0.04)
    found = values(scheduler, 9)
    root = math.sqrt(0.5)
    rates = [0, 0.05, 0.1, 0.1, 0.055 + 0.045 * root, 0.055, 0.055 - 0.045 * root, 0.01, 0.01]
    for group in range(3):
        assert [update[group][0] for update in found] == pytest.approx(rates)
    decays = [[update[group][1] for update in found] for group in range(3)]
    assert decays[1] == [0.0] * 9
    for first, group in ((0.04, 0), (0.2, 2)):
        expected = [0.4 + (first - 0.4) * (1 + math.cos(math.pi * n / 7)) / 2 for n in range(7)] + [0.4, 0.4]
        assert decays[group] == pytest.approx(expected)
    assert scheduler.weight_decay == 0.4


def test_constant_weight_decay() -> None:
    scheduler = CosineSchedule(optimizer(0.04), 4)
    assert [update[0][1] for update in values(scheduler, 5)] == [0.04] * 5
    assert scheduler.weight_decay is None and scheduler.scheduled == ()


def test_an_update_is_set_as_mmfs_trainer_does() -> None:
    scheduler, other = (CosineSchedule(optimizer(0.04), **PARAMS) for _ in range(2))
    values(scheduler, 5)
    with pytest.warns(UserWarning):
        other.step(5)
    assert read_hyperparameters(scheduler.optimizer) == read_hyperparameters(other.optimizer)


def test_advance_equals_steps() -> None:
    scheduler, other = (CosineSchedule(optimizer(0.04), **PARAMS) for _ in range(2))
    values(scheduler, 6)
    advance(other, 6)
    assert scheduler.last_epoch == other.last_epoch == 6
    assert read_hyperparameters(scheduler.optimizer) == read_hyperparameters(other.optimizer)


def test_registered_with_mmf() -> None:
    built = mmf_api.build_scheduler(optimizer(0.04), OmegaConf.create({"scheduler": COSINE}))
    assert type(built) is CosineSchedule is registry.get_scheduler_class("flava_cosine")
    assert built.base_lrs == [0.1] and (built.total, built.warmup, built.min_lr) == (8, 3, 0.01)


def test_errors_have_a_remedy() -> None:
    with pytest.raises(UserError, match=r"weight_decay_end has no effect, .* Set optimizer\.params\.weight_decay"):
        CosineSchedule(optimizer(0.0, 0.0), 8, weight_decay_end=0.4)
    with pytest.raises(UserError, match=r"warmup_epochs is only supported by .* Set num_warmup_steps"):
        CosineSchedule(optimizer(0.1), 8, warmup_epochs=1)
    assert CosineSchedule(optimizer(0.1), 8, num_warmup_steps=4, warmup_epochs=1).warmup == 4


# ---------------------------------------------------------------------- resumed runs

OPTIONS = {"scheduler": COSINE, "params": {"weight_decay": 0.04}}


def decay(trained) -> float:
    return trained.optimizer.param_groups[0]["weight_decay"]


def test_resumed_schedule_is_exact() -> None:
    interrupted = train(build(**OPTIONS), 3)
    resumed = resume(saved(interrupted), **OPTIONS)
    assert decay(resumed) == decay(interrupted) == cosine_value(3, 0.04, 0.4, 8) > 0.05
    assert resumed.weight_decay == decay(interrupted) and interrupted.weight_decay == cosine_value(2, 0.04, 0.4, 8)
    train(interrupted, 3), train(resumed, 3)
    assert saved(interrupted)[1]["param_groups"] == saved(resumed)[1]["param_groups"]
    assert resumed.weight_decay == interrupted.weight_decay == cosine_value(5, 0.04, 0.4, 8)
    assert all(torch.equal(a, b) for a, b in zip(resumed.engine.weights, interrupted.engine.weights, strict=True))


@pytest.mark.parametrize(
    ("scheduler", "params", "expected"),
    [
        ({**COSINE, "params": {**PARAMS, "weight_decay_end": None}}, {"weight_decay": 0.04}, 0.04),
        (None, {"weight_decay": 0.04}, 0.04),
        ({**COSINE, "params": {**PARAMS, "weight_decay_end": None}}, {"weight_decay": 0.07}, 0.07),
        (COSINE, {"weight_decay": 0.07}, cosine_value(3, 0.07, 0.4, 8)),
        ({**COSINE, "params": {**PARAMS, "weight_decay_end": 0.2}}, OPTIONS["params"], cosine_value(3, 0.04, 0.2, 8)),
    ],
)
def test_another_recipe_has_its_own_weight_decay(scheduler, params, expected) -> None:
    """The weight decay of the checkpoint's update is not a hyperparameter that the optimizer has adapted."""
    resumed = resume(saved(train(build(**OPTIONS), 3)), scheduler=scheduler, params=params)
    assert decay(resumed) == expected
    straight = train(build(scheduler=scheduler, params=params), 3)
    assert decay(straight) == expected


def test_a_schedule_that_is_new_continues_at_the_same_update() -> None:
    resumed = resume(saved(train(build(params=OPTIONS["params"]), 3)), **OPTIONS)
    assert decay(resumed) == cosine_value(3, 0.04, 0.4, 8)


def test_reset_counts_start_the_schedule() -> None:
    weights, state, _ = saved(train(build(**OPTIONS), 3))
    again = build(weights, **OPTIONS)
    again.load_state_dict(state)
    assert decay(again) == cosine_value(0, 0.04, 0.4, 8) == decay(build(**OPTIONS))


def test_saved_groups_have_the_value_of_update_0() -> None:
    groups, initial = [{"params": [0], "lr": 0.2, "weight_decay": 0.3}], [{"lr": 0.1, "weight_decay": 0.04}]
    stored = saved_groups(groups, initial, ("lr", "initial_lr", "weight_decay"))
    assert stored == [{"params": [0], "lr": 0.2, "weight_decay": 0.04, "initial": initial[0]}]
    assert saved_groups(groups, initial, ("lr", "initial_lr"))[0]["weight_decay"] == 0.3
    current = [{"params": [0], "lr": 0.0, "weight_decay": 0.05}]
    assert merge_groups(stored, initial, current, ("lr", "weight_decay"))[0]["weight_decay"] == 0.05
    assert merge_groups(stored, initial, current)[0]["weight_decay"] == 0.04
