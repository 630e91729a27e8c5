"""What a checkpoint holds: exact, and without pickles."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import load_model, load_state, restore_rng, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder


def trained(steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("background", [False, True])
def test_going_on_equals_not_having_stopped(tmp_path, background):
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path, background=background)
    path = folder.save(3, model, optimizer, {"seconds": 1.0, "rng": rng_state()})
    step(model, optimizer)
    drawn = (random.random(), np.random.rand(), torch.rand(1))
    folder.wait()

    other, fresh = trained(0)
    load_model(path, other)
    state = load_state(path, fresh)
    restore_rng(state["rng"])
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert drawn == (random.random(), np.random.rand(), torch.rand(1))
    assert (state["update"], state["seconds"]) == (3, 1.0)


def test_nothing_is_pickled(tmp_path):
    path = CheckpointFolder(tmp_path).save(1, *trained(1), {})
    assert sorted(p.suffix for p in path.iterdir()) == [".json", ".safetensors", ".safetensors", ".sha256"]


def test_weights_that_do_not_fit_are_named(tmp_path):
    model, optimizer = trained(1)
    path = CheckpointFolder(tmp_path).save(1, model, optimizer, {})
    with pytest.raises(UserError, match=r"missing 2\.weight.*|unknown 1\.bias.*"):
        load_model(path, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(UserError, match=r"0\.weight is \(4, 3\), the model's is \(5, 3\)"):
        load_model(path, nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)))
    with pytest.raises(UserError, match="neither a checkpoint folder"):
        load_model(tmp_path / "nothing.pth", model)
