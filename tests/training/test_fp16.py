"""fp16 training with fairseq's FP16Optimizer: learning, overflows, exact resume."""

import copy

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training import fp16
from mmf_flava.training.fp16 import MIN_SCALE, use_fp32_layer_norms
from tests.training.toys import batch, toy, updater

SCHEDULE = {"type": "warmup_linear", "params": {"num_warmup_steps": 5, "num_training_steps": 50}}


def update(trained, kind="pmd", number=0):
    """Do an update; return whether it was not skipped, and the sum of the losses."""
    losses = trained.accumulate(batch(kind, number))
    return trained.step(), sum(losses.values()).item()


def state_of(trained):
    return copy.deepcopy((trained.model_state(), trained.state_dict(), trained.schedule_state()))


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_fp16_learns_like_fp32():
    """Compared after 20 updates: later, rounding differences make runs diverge, as with 1 and 2 threads."""
    losses = {}
    for precision in ("fp16", "fp32"):
        trained = updater(toy(), precision=precision, clip=1.0)
        results = [update(trained) for _ in range(45)]
        losses[precision] = [loss for updated, loss in results if updated][:40]
        assert len(losses[precision]) == 40
    assert losses["fp16"][0] == pytest.approx(losses["fp32"][0], rel=0.01)
    assert losses["fp16"][19] == pytest.approx(losses["fp32"][19], rel=0.05)
    assert losses["fp16"][-1] < 0.1 * losses["fp16"][0]


def test_weights_are_fp16_except_norms_and_logit_scale_and_saved_state_is_fp32():
    model = toy()
    trained = updater(model, precision="fp16")
    update(trained)
    fp32 = {name for name, weight in model.named_parameters() if weight.dtype is torch.float32}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert fp32 == {f"{name}.{part}" for name in norms for part in ("weight", "bias")} | {"flava.logit_scale"}
    saved = trained.model_state()
    assert {value.dtype for value in saved.values()} == {torch.float32}
    weights = dict(model.named_parameters())
    assert all(torch.equal(saved[name].to(weight.dtype), weight) for name, weight in weights.items())
    assert not torch.equal(saved["heads.mim.dense.weight"], weights["heads.mim.dense.weight"].float())


def test_layer_norms_compute_in_fp32():
    """The squares of these values overflow fp16."""
    model = nn.Sequential(nn.LayerNorm(4))
    x = torch.tensor([[300.0, -400.0, 500.0, 1000.0]])
    expected = model(x).half()
    use_fp32_layer_norms(model)
    assert torch.equal(model.half()(x.half()), expected)


def test_overflow_changes_only_the_loss_scale():
    trained = updater(toy(), precision="fp16", scheduler=SCHEDULE)
    trained.precision.load_state_dict({"loss_scale": 128.0})
    assert update(trained)[0] is True
    weights, moments, schedule = state_of(trained)
    trained.precision.load_state_dict({"loss_scale": 2.0**40})
    assert update(trained)[0] is False
    assert trained.precision.loss_scale == 2.0**39
    after = state_of(trained)
    assert same(after[0], weights) and same(after[1], moments) and after[2]["scheduler"] == schedule["scheduler"]
    trained.precision.load_state_dict({"loss_scale": 128.0})
    assert update(trained)[0] is True
    assert trained.schedule_state()["scheduler"]["last_epoch"] == schedule["scheduler"]["last_epoch"] + 1


def test_overflow_at_the_minimum_loss_scale_raises_user_error():
    trained = updater(toy(), precision="fp16")
    with torch.no_grad():
        trained.engine.model.heads["itm"].classifier.bias.fill_(float("inf"))
    with pytest.raises(UserError, match=rf"fp16: .* down to {MIN_SCALE}.*bf16\.$"):
        for _ in range(100):
            assert update(trained)[0] is False


def test_parameters_that_a_batch_does_not_use_do_not_change():
    """Without ``MasterOptimizer``, Adam's momentum would change them."""
    trained = updater(toy(), precision="fp16")
    update(trained, "ccnews_bookcorpus")
    before = state_of(trained)[0]
    update(trained, "imagenet")
    after = trained.model_state()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all(name.startswith(("flava.image_encoder", "heads.mim")) for name in changed)


def test_resumed_training_equals_uninterrupted_training():
    kinds = ["pmd", "imagenet", "ccnews_bookcorpus"]

    def train(trained, first, last):
        for number in range(first, last):
            update(trained, kinds[number % 3], number)

    uninterrupted = updater(toy(), precision="fp16", clip=1.0, scheduler=SCHEDULE)
    train(uninterrupted, 0, 4)
    weights, moments, schedule = state_of(uninterrupted)
    train(uninterrupted, 4, 9)
    resumed = updater(toy(weights), precision="fp16", clip=1.0, scheduler=SCHEDULE)
    resumed.load_state_dict(moments)
    resumed.load_schedule_state(schedule)
    train(resumed, 4, 9)
    assert same(state_of(resumed), state_of(uninterrupted))


def test_zero_parameters_are_initialised(monkeypatch):
    """Otherwise their gradients through a LayerNorm overflow fp16 at any loss scale."""

    def trained():
        model = toy()
        for name in ("cls_token", "pos_embed", "mask_token"):
            getattr(model.flava.image_encoder, name).data.zero_()
        return updater(model, precision="fp16", lr=1e-4)

    initialised = trained()
    assert sum(update(initialised, "imagenet")[0] for _ in range(10)) >= 5
    monkeypatch.setattr(fp16, "init_zero_parameters", lambda model: None)
    uninitialised = trained()
    with pytest.raises(UserError, match="fp16"):
        for _ in range(40):
            update(uninitialised, "imagenet")
