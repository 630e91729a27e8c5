import json

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.training.guard import IN_A_ROW, WINDOW, LossGuard


@pytest.fixture
def guard(tmp_path):
    return LossGuard(tmp_path / "skipped.jsonl", sigma=6.0)


def update(guard, number, *losses, name="pmd"):
    """One update of one batch whose losses have these values."""
    batch = {"dataset_name": name, "sample_id": [f"{number}a", f"{number}b"]}
    guard.note(batch, {f"train/{name}/flava_{n}": torch.tensor(value) for n, value in enumerate(losses)})
    return guard.skips(number)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_finite_is_skipped_and_named(guard, value, place):
    losses = [1.0, 2.0]
    losses[place] = value
    assert not update(guard, 0, 1.0, 2.0)
    assert update(guard, 1, *losses)
    assert not update(guard, 1, 1.0, 2.0)
    (line,) = [json.loads(line) for line in guard.file.read_text().splitlines()]
    assert (line["update"], line["dataset"], line["sample_ids"]) == (2, "pmd", ["1a", "1b"])
    assert (line["reason"], line["losses"][f"flava_{place}"]) == ("not finite", str(value))


def test_opposite_infinities_do_not_hide_in_a_sum(guard):
    assert update(guard, 0, float("inf"), float("-inf"))


def test_each_batch_of_an_update_counts(guard):
    guard.note({"dataset_name": "pmd", "sample_id": ["a"]}, {"x": torch.tensor(float("nan"))})
    guard.note({"dataset_name": "pmd", "sample_id": ["b"]}, {"x": torch.tensor(1.0)})
    assert guard.skips(0)
    assert guard.file.read_text().count("\n") == 2


def test_ten_in_a_row_stop_the_run(guard):
    for number in range(IN_A_ROW - 1):
        assert update(guard, number, float("nan"))
    assert not update(guard, 9, 1.0)
    for number in range(IN_A_ROW - 1):
        assert update(guard, number, float("nan"))
    with pytest.raises(UserError, match=r"10 updates in a row.*flava_0 nan"):
        update(guard, 9, float("nan"))


def test_a_spike_is_told_by_the_datasets_own_losses(guard):
    """Losses of 1 and 3 by turns: mean 2, deviation 1; 8 is six of them above."""
    for number in range(WINDOW):
        assert not update(guard, number, 1.0 + 2 * (number % 2))
        assert not update(guard, number, 100.0, name="imagenet")
    assert not update(guard, WINDOW, 7.9)
    assert update(guard, WINDOW, 9.0)
    assert not update(guard, WINDOW, 9.0, name="text"), "nothing is known of it yet"
    assert json.loads(guard.file.read_text())["reason"] == "spike"


def test_without_sigma_spikes_pass(tmp_path):
    guard = LossGuard(tmp_path / "skipped.jsonl")
    assert not any(update(guard, number, 1.0) for number in range(WINDOW))
    assert not update(guard, WINDOW, 1e6)


def test_its_state_survives_a_checkpoint(guard, tmp_path):
    for number in range(WINDOW):
        update(guard, number, 1.0 + 2 * (number % 2))
    update(guard, WINDOW, float("nan"))
    again = LossGuard(tmp_path / "skipped.jsonl", sigma=6.0)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again.in_a_row == 1
    assert update(again, WINDOW, 9.0)


def test_a_batch_without_losses_is_let_through(guard):
    guard.note({"dataset_name": "pmd", "sample_id": ["a"]}, {})
    assert not guard.skips(0)
