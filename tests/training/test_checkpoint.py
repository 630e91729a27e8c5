"""Checkpoints: whole or not at all, without pickles, and exact."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import CheckpointFolder, load_model, load_state, restore_rng, rng_state


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


def test_going_on_equals_not_having_stopped(tmp_path):
    model, optimizer = trained()
    path = CheckpointFolder(tmp_path).save(3, model, optimizer, {"seconds": 1.0, "rng": rng_state()})
    step(model, optimizer)
    drawn = (random.random(), np.random.rand(), torch.rand(1))

    other, fresh = trained(0)
    load_model(path, other)
    state = load_state(path, fresh)
    restore_rng(state["rng"])
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert drawn == (random.random(), np.random.rand(), torch.rand(1))
    assert (state["update"], state["seconds"]) == (3, 1.0)


def test_latest_names_the_newest_complete_checkpoint_and_old_ones_go(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=2)
    assert folder.latest() is None
    model, optimizer = trained(1)
    for update in (5, 10, 15):
        folder.save(update, model, optimizer, {})
    assert folder.latest().name == "update_00000015"
    assert sorted(p.name for p in folder.folder.iterdir()) == ["latest", "update_00000010", "update_00000015"]


def test_a_save_that_dies_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    model, optimizer = trained(1)
    folder.save(5, model, optimizer, {})

    def full_disk(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("mmf_flava.training.checkpoint._fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        folder.save(10, model, optimizer, {})
    assert folder.latest().name == "update_00000005"


def test_nothing_is_pickled(tmp_path):
    model, optimizer = trained(1)
    path = CheckpointFolder(tmp_path).save(1, model, optimizer, {})
    assert sorted(p.suffix for p in path.iterdir()) == [".json", ".safetensors", ".safetensors"]


def test_weights_that_do_not_fit_are_named(tmp_path):
    model, optimizer = trained(1)
    path = CheckpointFolder(tmp_path).save(1, model, optimizer, {})
    with pytest.raises(UserError, match=r"missing 2\.weight.*|unknown 1\.bias.*"):
        load_model(path, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(UserError, match=r"0\.weight is \(4, 3\), the model's is \(5, 3\)"):
        load_model(path, nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)))
    with pytest.raises(UserError, match="neither a checkpoint folder"):
        load_model(tmp_path / "nothing.pth", model)
