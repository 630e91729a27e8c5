"""Buffers that a forward pass changes are restored."""

import copy

import torch
from torch import nn

from mmf_flava.training.buffers import BufferCopies


class Average(nn.Module):
    """Replaces one buffer, changes the data of another one, and creates a third."""

    def __init__(self):
        super().__init__()
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("changed", torch.ones(2))
        self.register_buffer("created", None)
        self.register_buffer("resized", torch.zeros(1))

    def forward(self, x):
        self.replaced = 0.9 * self.replaced + x.detach().mean(dim=0)
        self.changed.data.mul_(2)
        self.created = x.detach().clone()
        self.resized = torch.cat([self.resized, self.resized])
        return x


def build():
    torch.manual_seed(0)
    frozen = nn.BatchNorm1d(2).eval()
    model = nn.Sequential(nn.BatchNorm1d(2), Average(), frozen, nn.Linear(2, 2))
    return model, BufferCopies(model)


def state(model):
    return copy.deepcopy(dict(model.named_buffers()))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_buffers_are_restored_to_those_before_the_last_save():
    model, copies = build()
    for _ in range(3):
        copies.save()
        before = state(model)
        for _ in range(2):
            model(torch.randn(5, 2))
        assert not same(state(model), before)
        copies.restore()
        assert same(state(model), before)
        copies.save()
        model(torch.randn(5, 2))


def test_restored_buffers_keep_their_dtype():
    """FSDP casts buffers in the first forward pass."""
    model, copies = build()
    copies.save()
    model[0].running_mean = model[0].running_mean.half().add_(1)
    copies.restore()
    assert model[0].running_mean.dtype is torch.float16 and not model[0].running_mean.any()


def test_only_buffers_of_modules_in_training_mode_are_copied():
    model, copies = build()
    copies.save()
    assert len(copies._copies) == 6
    model.eval()
    copies.save()
    assert not copies._copies
