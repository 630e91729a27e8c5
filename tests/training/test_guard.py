"""Skipping of updates with invalid or unusually large losses, or invalid gradients."""

import json
import math

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.training.guard import MAX_CONSECUTIVE_SKIPS, WINDOW, UpdateGuard


@pytest.fixture
def guard(tmp_path):
    return UpdateGuard(tmp_path / "skipped.jsonl", sigma=6.0)


def square(norm=3.0):
    return torch.tensor(norm, dtype=torch.float64).square()


def update(guard, number, *values, name="pmd", norm=3.0):
    """Add a batch with these losses; return whether the update is skipped."""
    batch = {"dataset_name": name, "sample_id": [f"{number}a", f"{number}b"]}
    losses = {f"train/{name}/flava_{n}": torch.tensor(value) for n, value in enumerate(values)}
    guard.add_batch(batch, losses)
    return guard.check(number, losses, square(norm)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("index", [0, 1])
def test_update_with_non_finite_loss_is_skipped_and_recorded(guard, value, index):
    losses = [1.0, 2.0]
    losses[index] = value
    assert not update(guard, 0, 1.0, 2.0)
    assert update(guard, 1, *losses)
    assert not update(guard, 1, 1.0, 2.0)
    (record,) = [json.loads(line) for line in guard.file.read_text().splitlines()]
    assert (record["update"], record["dataset"], record["sample_ids"]) == (2, "pmd", ["1a", "1b"])
    assert (record["reason"], record["losses"][f"flava_{index}"]) == ("not finite", str(value))


def test_infinities_of_opposite_signs_are_skipped(guard):
    assert update(guard, 0, float("inf"), float("-inf"))


def test_one_bad_batch_skips_the_update_and_all_batches_are_recorded(guard):
    guard.add_batch({"dataset_name": "pmd", "sample_id": ["a"]}, {"x": torch.tensor(float("nan"))})
    guard.add_batch({"dataset_name": "pmd", "sample_id": ["b"]}, {"x": torch.tensor(1.0)})
    assert guard.check(0, {"x": torch.tensor(float("nan"))}, square()) is None
    assert guard.file.read_text().count("\n") == 2


def test_ten_consecutive_skips_raise_user_error(guard):
    for number in range(MAX_CONSECUTIVE_SKIPS - 1):
        assert update(guard, number, float("nan"))
    assert not update(guard, 9, 1.0)
    for number in range(MAX_CONSECUTIVE_SKIPS - 1):
        assert update(guard, number, float("nan"))
    with pytest.raises(UserError, match=r"10 updates in a row.*flava_0 nan"):
        update(guard, 9, float("nan"))


def test_spikes_are_detected_per_dataset(guard):
    """Losses alternate between 1 and 3: mean 2, deviation 1, so 8 is the limit with sigma 6."""
    for number in range(WINDOW):
        assert not update(guard, number, 1.0 + 2 * (number % 2))
        assert not update(guard, number, 100.0, name="imagenet")
    assert not update(guard, WINDOW, 7.9)
    assert update(guard, WINDOW, 9.0)
    assert not update(guard, WINDOW, 9.0, name="text"), "a dataset without a full window has no spikes"
    assert json.loads(guard.file.read_text())["reason"] == "spike"


def test_spikes_are_not_skipped_without_sigma(tmp_path):
    guard = UpdateGuard(tmp_path / "skipped.jsonl")
    assert not any(update(guard, number, 1.0) for number in range(WINDOW))
    assert not update(guard, WINDOW, 1e6)


def test_state_is_restored_from_a_checkpoint(guard, tmp_path):
    for number in range(WINDOW):
        update(guard, number, 1.0 + 2 * (number % 2))
    update(guard, WINDOW, float("nan"))
    restored = UpdateGuard(tmp_path / "skipped.jsonl", sigma=6.0)
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert restored.consecutive_skips == 1
    assert update(restored, WINDOW, 9.0)


def test_batch_without_losses_is_not_skipped(guard):
    guard.add_batch({"dataset_name": "pmd", "sample_id": ["a"]}, {})
    assert guard.check(0, {}, square(0.0)) == 0.0


@pytest.mark.parametrize("norm", [math.nan, math.inf, 2e19])
def test_update_with_a_gradient_norm_that_is_not_finite_is_skipped_and_recorded(guard, norm):
    """The square of 2e19 overflows fp32, as Adam's second moments would."""
    assert update(guard, 1, 1.0, 2.0, norm=norm)
    assert not update(guard, 1, 1.0, 2.0, norm=1e19)
    (record,) = [json.loads(line) for line in guard.file.read_text().splitlines()]
    assert record == {
        "update": 2,
        "dataset": "pmd",
        "reason": "gradient not finite",
        "losses": {"flava_0": 1.0, "flava_1": 2.0},
        "sample_ids": ["1a", "1b"],
    }


def test_ten_consecutive_updates_with_invalid_losses_or_gradients_raise_user_error(guard):
    for number in range(MAX_CONSECUTIVE_SKIPS - 1):
        assert update(guard, number, float("nan"))
    with pytest.raises(UserError, match=r"10 updates in a row.*: gradient not finite \(norm nan; losses: flava_0 1"):
        update(guard, 9, 1.0, norm=math.nan)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_fp16_overflow_is_neither_recorded_nor_counted(tmp_path, norm):
    guard = UpdateGuard(tmp_path / "skipped.jsonl", loss_scaling=True)
    assert update(guard, 0, float("nan"))
    state = guard.state_dict()
    assert not update(guard, 0, 1.0, norm=norm) and guard.state_dict() == state
    assert guard.file.read_text().count("\n") == 1
    assert update(guard, 0, float("nan"), norm=norm), "a bad loss under fp16 is recorded"
    assert guard.consecutive_skips == 2
