"""Contents of checkpoints: exact state, no pickles."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import load_state, restore_rng, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.weights.loading import load_checkpoint_weights


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
def test_resumed_training_equals_uninterrupted_training(tmp_path, background):
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path, background=background)
    path = folder.save(3, model, optimizer, {"seconds": 1.0, "rng": rng_state()})
    step(model, optimizer)
    samples = (random.random(), np.random.rand(), torch.rand(1))
    folder.wait()

    other, fresh = trained(0)
    load_checkpoint_weights(other, path)
    state = load_state(path, fresh)
    restore_rng(state["rng"])
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert samples == (random.random(), np.random.rand(), torch.rand(1))
    assert (state["update"], state["seconds"]) == (3, 1.0)


def test_checkpoint_has_no_pickle(tmp_path):
    path = CheckpointFolder(tmp_path).save(1, *trained(1), {})
    assert sorted(p.suffix for p in path.iterdir()) == [".json", ".safetensors", ".safetensors", ".sha256"]


def test_weights_that_do_not_fit_are_named(tmp_path):
    model, optimizer = trained(1)
    path = CheckpointFolder(tmp_path).save(1, model, optimizer, {})
    with pytest.raises(UserError, match=r"(?s)missing: 2\n    2\.weight.*unexpected: 2\n.*1\.bias"):
        load_checkpoint_weights(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), path)
    with pytest.raises(UserError, match=r"0\.weight: \(4, 3\), expected \(5, 3\)"):
        load_checkpoint_weights(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), path)
    with pytest.raises(UserError, match="neither a checkpoint folder"):
        load_checkpoint_weights(model, tmp_path / "nothing.pth")
