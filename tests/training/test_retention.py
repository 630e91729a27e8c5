"""Which checkpoints stay: the newest, the best, and the newest that is valid."""

import shutil

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.training import retention
from mmf_flava.training.checkpoint import GatheredState
from mmf_flava.training.checkpoint_folder import CheckpointFolder


def save(folder, update, best=False, value=1.0):
    weights = {"weight": torch.full((3,), value), "count": torch.tensor(1)}
    return folder.save(update, GatheredState(weights), GatheredState({"state": {}, "param_groups": []}), {}, best)


def updates(folder):
    return [int(path.name.removeprefix("update_")) for path in sorted(folder.folder.glob("update_*"))]


@pytest.fixture
def full(monkeypatch):
    """Return a function that makes all further saves fail after old checkpoints have been removed."""

    def fail(_):
        raise OSError(28, "full")

    return lambda: monkeypatch.setattr("mmf_flava.training.checkpoint_folder.write_checksums", fail)


def fail_to_save(folder, update):
    with pytest.raises(UserError, match=f"update {update} could not be written"):
        save(folder, update)
    return updates(folder)


@pytest.fixture
def verified(monkeypatch):
    """Return the names of the checkpoints that are verified."""
    names, verify = [], retention.verify_folder
    monkeypatch.setattr(retention, "verify_folder", lambda path: names.append(path.name) or verify(path))
    return names


@pytest.mark.parametrize(
    ("max_to_keep", "best", "kept"),
    [(1, 1, [1, 4]), (1, 4, [4]), (2, 2, [2, 4]), (3, 1, [1, 3, 4]), (-1, 1, [1, 2, 3, 4])],
)
def test_the_new_checkpoint_counts_before_the_save(tmp_path, full, verified, max_to_keep, best, kept):
    folder = CheckpointFolder(tmp_path, -1)
    for update in (1, 2, 3, 4):
        save(folder, update, best=update == best)
    resumed = CheckpointFolder(tmp_path, max_to_keep)
    assert resumed.latest().name == "update_00000004"
    full()
    assert fail_to_save(resumed, 5) == kept
    assert not verified  # the checkpoint that was loaded is known to be intact


@pytest.mark.parametrize("damage", ["flipped", "missing", "not finite"])
def test_the_newest_valid_checkpoint_stays(tmp_path, full, verified, damage):
    folder = CheckpointFolder(tmp_path, -1)
    for update in (1, 2):
        save(folder, update)
    path = save(folder, 3, value=float("nan") if damage == "not finite" else 1.0)
    if damage == "flipped":
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)
    elif damage == "missing":
        (path / "state.json").unlink()
    full()
    resumed = CheckpointFolder(tmp_path, 1)
    assert fail_to_save(resumed, 4) == [2]
    assert fail_to_save(resumed, 4) == [2]
    assert verified == ["update_00000003", "update_00000002"]  # only once


def test_nothing_is_removed_if_all_are_damaged(tmp_path, full):
    folder = CheckpointFolder(tmp_path, -1)
    for update in (1, 2):
        (save(folder, update) / "state.json").unlink()
    full()
    assert fail_to_save(CheckpointFolder(tmp_path, 1), 3) == [1, 2]


def test_infinite_buffers_of_all_checkpoints_do_not_matter(tmp_path, full):
    folder = CheckpointFolder(tmp_path, -1)
    for update in (1, 2):
        save(folder, update, value=float("-inf"))
    full()
    assert fail_to_save(CheckpointFolder(tmp_path, 1), 3) == [2]


def test_the_checkpoint_that_the_run_was_resumed_from_stays_until_the_next_save(tmp_path, full, monkeypatch):
    folder = CheckpointFolder(tmp_path, -1)
    for update in (10, 20, 30):
        save(folder, update)
    resumed = CheckpointFolder(tmp_path, 1)
    resumed.make_room(11)
    assert updates(resumed) == [10, 30]
    full()
    assert fail_to_save(resumed, 15) == [10, 30]
    monkeypatch.undo()
    save(resumed, 15)
    assert updates(resumed) == [15]


def test_leftovers_are_removed_at_the_start_of_a_run(tmp_path):
    folder = CheckpointFolder(tmp_path)
    path = save(folder, 1)
    shutil.copytree(path, path.with_name(".update_00000002.0.partial"))
    folder.make_room(2)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["latest", "update_00000001"]
