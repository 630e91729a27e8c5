"""The fused kernel of Adam and AdamW: where it is the default, and that it trains like other implementations."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")


def fused(optimizer="AdamW", dtype=torch.float32, group=None, **params):
    config = OmegaConf.create({"optimizer": {"type": optimizer, "params": {"lr": 0.1, **params}}})
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2, dtype=dtype))], **(group or {})}]
    return mmf_api.build_optimizer(groups, config).param_groups[0].get("fused")


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "adam_w"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_adam_is_fused(optimizer, dtype):
    assert fused(optimizer, dtype)


def test_others_are_not_fused():
    """torch's fused SGD fails if a parameter is not used in the first update."""
    assert not fused("SGD") and not fused("RMSprop") and not fused("Adagrad") and not fused(dtype=torch.complex64)


@pytest.mark.parametrize("option", [{"fused": False}, {"foreach": True}, {"foreach": False}, {"differentiable": True}])
def test_another_implementation_in_the_recipe_or_group_is_kept(option):
    assert not fused(**option) and not fused(group=option)


def train(trained, numbers):
    trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
    for number in numbers:
        trained.accumulate(batch(KINDS[number % 3], number))
        assert trained.step()
    return trained


def same_weights(ours, expected, tolerance=0.0):
    return all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance)
        for a, b in zip(ours.masters.values(), expected.masters.values(), strict=True)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_updates_are_those_of_the_other_implementations(precision):
    """Every batch leaves parameters unused. The epsilon is large, so that Adam does not amplify rounding errors."""
    runs = [
        train(updater(toy(), params={"eps": 1e-3, **params}, clip=1.0, precision=precision), range(9))
        for params in ({}, {"fused": False})
    ]
    assert same_weights(*runs, tolerance=1e-4 if precision == "fp32" else 1e-2)
    steps = [[state["step"].item() for state in run.optimizer.state.values()] for run in runs]
    assert steps[0] == steps[1] and len(set(steps[0])) > 1


@pytest.mark.parametrize("params", [({"fused": False}, {}), ({}, {"fused": False}), ({}, {})], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_run_resumes_with_the_implementation_of_the_recipe(precision, params):
    before, after = params
    interrupted = train(updater(toy(), params=before, precision=precision), range(4))
    weights, state, schedule = copy.deepcopy(
        (interrupted.model_state(), interrupted.state_dict(), interrupted.schedule_state())
    )
    resumed = updater(toy(weights), params=after, precision=precision)
    resumed.load_state_dict(state)
    resumed.load_schedule_state(schedule)
    assert bool(resumed.optimizer.param_groups[0]["fused"]) == ("fused" not in after)
    straight = train(interrupted, range(4, 7))
    assert same_weights(train(resumed, range(4, 7)), straight, tolerance=0.0 if before == after else 1e-3)
