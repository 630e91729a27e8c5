"""A state with NaN or infinity is found and named."""

import math
from dataclasses import fields
from unittest.mock import MagicMock, Mock, patch

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import pointer_text
from mmf_flava.files.checksums import CHECKSUMS
from mmf_flava.training.finite import FiniteCheck, first_not_finite
from mmf_flava.training.run_state import RunState


def trained():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    optimizer = torch.optim.AdamW(model.parameters())
    check = FiniteCheck(model, optimizer.param_groups)
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    return model, optimizer, check


def set_last(tensor, value):
    with torch.no_grad():
        tensor.view(-1)[-1] = value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_first_bad_tensor_is_named(value):
    model, optimizer, check = trained()
    assert check.find(model.state_dict(), optimizer.state_dict()) is None, "an infinite mask is intended"
    set_last(optimizer.state[model[1].weight]["exp_avg_sq"], value)
    found = check.find(model.state_dict(), optimizer.state_dict())
    assert found == "the optimizer's exp_avg_sq of 1.weight"
    set_last(model[1].running_var, value)
    assert check.find(model.state_dict(), optimizer.state_dict()) == "1.running_var"
    set_last(model[0].bias, value)
    assert check.find(model.state_dict(), optimizer.state_dict()) == "0.bias"


def test_processes_without_the_state_find_nothing():
    *_, check = trained()
    assert check.find({}, {"state": {}, "param_groups": []}) is None and check.find({}, {}) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_largest_values_are_finite(dtype):
    tensors = {"large": torch.full((3,), torch.finfo(dtype).max, dtype=dtype), "none": torch.zeros(0)}
    tensors |= {"count": torch.tensor(2**62), "flag": torch.tensor(True)}
    assert first_not_finite(tensors) is None
    assert first_not_finite({**tensors, "bad": torch.tensor([0, math.nan], dtype=dtype)}) == "bad"


def saved(folder, bad_tensors):
    """Save a state whose processes find these tensors; return the mock of the checkpoint folder."""
    with patch("mmf_flava.training.run_state.gather_objects", side_effect=[bad_tensors, [{}]]):
        checkpoints = Mock(folder=folder)
        state = RunState(*(MagicMock() for _ in fields(RunState)))
        state.save(checkpoints, 40, 1.0, best=True)
    return checkpoints


def test_state_that_is_not_finite_on_any_process_is_not_saved(tmp_path):
    assert saved(tmp_path, [None, None]).save.called
    message = (
        r"checkpoint of update 40 was not saved, because 0\.bias contains NaN or infinity on rank 1\. .* Restart\. "
    )
    with pytest.raises(UserError, match=message) as error:
        saved(tmp_path, [None, "0.bias"])
    assert str(error.value).startswith(f"{tmp_path}: ")
    checkpoint = tmp_path / "update_00000020"
    checkpoint.mkdir()
    (checkpoint / CHECKSUMS).touch()
    (tmp_path / "latest").write_text(pointer_text(checkpoint))
    with pytest.raises(UserError, match=r"infinity\. .* Resume from update_00000020 with checkpoint\.resume=true\. "):
        saved(tmp_path, ["0.bias"])
