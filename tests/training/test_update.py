"""Updates on one process: the reported learning rate, and the hook after each step."""

import math

import pytest
import torch

from tests.training.toys import batch, toy, updater

PRECISIONS = ("fp32", "bf16", "fp16")
BOUNDS = (0.0, 1.25)  # exact in fp16
SCHEDULE = {"type": "warmup_linear", "params": {"num_warmup_steps": 4, "num_training_steps": 12}}


def saved_logit_scales(sharding: str, precision: str, rows: slice = slice(None)) -> list[float | None]:
    """Start at each bound of the logit scale and step beyond it; return the saved values, None on other processes."""
    scales = []
    for bound, gradient in zip(BOUNDS, (1e4, -1e4), strict=True):
        model = toy()
        model.flava.logit_scale_max = BOUNDS[1]
        model.flava.logit_scale.data.fill_(bound)
        trained = updater(model, optimizer="SGD", lr=0.1, sharding=sharding, precision=precision)
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
        trained.accumulate(batch("pmd", 0, rows))
        for weight in trained.engine.weights:
            if trained.engine.names[weight] == "flava.logit_scale":
                weight.grad.fill_(gradient)
        assert trained.step()
        scales.append(trained.model_state().get("flava.logit_scale"))
    return [None if scale is None else scale.item() for scale in scales]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logit_scale_is_saved_clamped(precision: str) -> None:
    assert saved_logit_scales("none", precision) == [*BOUNDS]


def test_loaded_logit_scale_is_clamped() -> None:
    model = toy()
    model.load_state_dict({**model.state_dict(), "flava.logit_scale": torch.tensor(9.0)})
    assert model.flava.logit_scale.item() == pytest.approx(math.log(100))
    assert updater(model).model_state()["flava.logit_scale"] == model.flava.logit_scale


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_model_hook_changes_the_saved_weights(precision: str) -> None:
    """The hook is called once per update, and not if the update is skipped."""
    model, calls = toy(), []

    def after_step(weights):
        calls.append(len(weights))
        weights["heads.itm.classifier.bias"].fill_(0.5)

    model.after_step = after_step
    trained = updater(model, precision=precision)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 2.0**40})
        trained.accumulate(batch("pmd"))
        assert not trained.step() and not calls
        trained.precision.load_state_dict({"loss_scale": 128.0})
    trained.accumulate(batch("pmd"))
    assert trained.step() and calls == [len(list(model.parameters()))]
    assert (trained.model_state()["heads.itm.classifier.bias"] == 0.5).all()
    assert (model.heads["itm"].classifier.bias == 0.5).all()


def test_learning_rate_is_that_of_the_last_update() -> None:
    """Linear warm-up over 4 updates from 0, then linear decay to 0 at update 12; a skipped update has no rate."""
    trained = updater(toy(), lr=0.08, scheduler=SCHEDULE, precision="fp16")
    trained.precision.load_state_dict({"loss_scale": 128.0})
    rates = [trained.learning_rate]
    for number in range(7):
        if number == 2:
            trained.precision.load_state_dict({"loss_scale": 2.0**40})
        trained.accumulate(batch("pmd", number))
        assert trained.step() is (number != 2)
        trained.precision.load_state_dict({"loss_scale": 128.0})
        rates.append(trained.learning_rate)
    assert rates == pytest.approx([0, 0, 0.02, 0.02, 0.04, 0.06, 0.08, 0.07])
