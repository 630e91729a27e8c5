"""fairseq's FP16Optimizer around MMF's optimizer: learns, skips what overflows, goes on exactly."""

import copy

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training import fp16
from mmf_flava.training.fp16 import SMALLEST_SCALE, normalise_in_fp32
from tests.training.toys import batch, toy, updater

SCHEDULE = {"type": "warmup_linear", "params": {"num_warmup_steps": 5, "num_training_steps": 50}}


def update(trained, kind="pmd", number=0):
    """Whether something moved, and the sum of the losses."""
    losses = trained.accumulate(batch(kind, number))
    return trained.step(), sum(losses.values()).item()


def state_of(trained):
    return copy.deepcopy((trained.model_state(), trained.state_dict(), trained.schedule_state()))


def same(ours, theirs):
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return all(map(same, ours, theirs))
    return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def test_it_learns_as_fp32_does():
    """Compared after 20 updates: later the two ways of rounding have led apart, as 1 and 2 threads do."""
    learnt = {}
    for precision in ("fp16", "fp32"):
        trained = updater(toy(), precision=precision, clip=1.0)
        results = [update(trained) for _ in range(45)]
        learnt[precision] = [loss for moved, loss in results if moved][:40]
        assert len(learnt[precision]) == 40
    assert learnt["fp16"][0] == pytest.approx(learnt["fp32"][0], rel=0.01)
    assert learnt["fp16"][19] == pytest.approx(learnt["fp32"][19], rel=0.05)
    assert learnt["fp16"][-1] < 0.1 * learnt["fp16"][0]


def test_weights_are_fp16_but_for_norms_and_the_logit_scale_and_what_is_saved_is_fp32():
    model = toy()
    trained = updater(model, precision="fp16")
    update(trained)
    precise = {name for name, weight in model.named_parameters() if weight.dtype is torch.float32}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert precise == {f"{name}.{part}" for name in norms for part in ("weight", "bias")} | {"flava.logit_scale"}
    saved = trained.model_state()
    assert {value.dtype for value in saved.values()} == {torch.float32}
    weights = dict(model.named_parameters())
    assert all(torch.equal(saved[name].to(weight.dtype), weight) for name, weight in weights.items())
    assert not torch.equal(saved["heads.mim.dense.weight"], weights["heads.mim.dense.weight"].float())


def test_layer_norms_compute_in_fp32():
    """The squares of these numbers are beyond fp16."""
    model = nn.Sequential(nn.LayerNorm(4))
    x = torch.tensor([[300.0, -400.0, 500.0, 1000.0]])
    expected = model(x).half()
    normalise_in_fp32(model)
    assert torch.equal(model.half()(x.half()), expected)


def test_an_overflow_moves_nothing_but_the_loss_scale():
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


def test_a_loss_scale_that_finds_no_floor_ends_the_run_in_one_sentence():
    trained = updater(toy(), precision="fp16")
    with torch.no_grad():
        trained.engine.model.heads["itm"].classifier.bias.fill_(float("inf"))
    with pytest.raises(UserError, match=rf"fp16 .* down to {SMALLEST_SCALE}.*bf16\.$"):
        for _ in range(100):
            assert update(trained)[0] is False


def test_what_a_batch_does_not_use_stays_where_it_is():
    """fairseq alone would have Adam move it, by its momentum."""
    trained = updater(toy(), precision="fp16")
    update(trained, "ccnews_bookcorpus")
    before = state_of(trained)[0]
    update(trained, "imagenet")
    after = trained.model_state()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(name.startswith(("flava.image_encoder", "heads.mim")) for name in moved)


def test_going_on_equals_not_having_stopped():
    kinds = ["pmd", "imagenet", "ccnews_bookcorpus"]

    def train(trained, first, last):
        for number in range(first, last):
            update(trained, kinds[number % 3], number)

    whole = updater(toy(), precision="fp16", clip=1.0, scheduler=SCHEDULE)
    train(whole, 0, 4)
    weights, moments, schedule = state_of(whole)
    train(whole, 4, 9)
    resumed = updater(toy(weights), precision="fp16", clip=1.0, scheduler=SCHEDULE)
    resumed.load_state_dict(moments)
    resumed.restore_schedule(schedule)
    train(resumed, 4, 9)
    assert same(state_of(resumed), state_of(whole))


def test_vectors_of_zeros_start_with_noise(monkeypatch):
    """Before a LayerNorm they have gradients beyond fp16, at any loss scale."""

    def trained():
        model = toy()
        for name in ("cls_token", "pos_embed", "mask_token"):
            getattr(model.flava.image_encoder, name).data.zero_()
        return updater(model, precision="fp16", lr=1e-4)

    woken = trained()
    assert sum(update(woken, "imagenet")[0] for _ in range(10)) >= 5
    monkeypatch.setattr(fp16, "wake", lambda model: None)
    numb = trained()
    with pytest.raises(UserError, match="fp16"):
        for _ in range(40):
            update(numb, "imagenet")
