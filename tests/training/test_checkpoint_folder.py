"""Checkpoints are written atomically; the newest ones and the best one are kept."""

import shutil
import threading

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import Snapshot
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.initial_weights import verify_named_checkpoint


def model_and_optimizer():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def updates(folder):
    return [int(path.name.removeprefix("update_")) for path in sorted(folder.folder.glob("update_*"))]


def flip_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_latest_is_the_newest_checkpoint_and_old_ones_are_removed(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=2)
    assert folder.latest() is None and folder.best() is None
    for update in (5, 10, 15):
        folder.save(update, *model_and_optimizer(), {})
    assert folder.latest().name == "update_00000015"
    assert names(folder) == ["latest", "update_00000010", "update_00000015"]


def test_best_checkpoint_is_kept_until_the_next_best_one(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=1)
    folder.save(1, *model_and_optimizer(), {})
    with pytest.raises(UserError, match=r"does not name a checkpoint\. Set checkpoint\.resume_best=false"):
        folder.best()
    for update, best, kept in ((2, True, [2]), (3, False, [2, 3]), (4, False, [2, 4]), (5, True, [5])):
        folder.save(update, *model_and_optimizer(), {}, best)
        assert updates(folder) == kept
    assert folder.best().name == folder.latest().name == "update_00000005"
    flip_bit(folder.best() / "model.safetensors")
    with pytest.raises(UserError, match=r"checkpoints/best: .*model\.safetensors is corrupt.*resume_best=false"):
        folder.best()


def test_best_checkpoint_is_kept_if_its_pointer_is_corrupt_or_its_update_is_repeated(tmp_path):
    messages = []
    folder = CheckpointFolder(tmp_path, max_to_keep=1, log=messages.append)
    folder.save(1, *model_and_optimizer(), {"attempt": 1}, best=True)
    for attempt in (2, 3):
        folder.save(1, *model_and_optimizer(), {"attempt": attempt})
        assert folder.latest().name == f"update_00000001.{attempt - 1}" and not messages.pop().startswith("Warning")
    folder.save(2, *model_and_optimizer(), {})
    assert '"attempt": 1' in (folder.best() / "state.json").read_text()
    assert folder.latest().name == "update_00000002"
    flip_bit(folder.folder / "best")
    folder.save(3, *model_and_optimizer(), {})
    assert f"{folder.folder / 'best'} is corrupt" in messages[-2]
    assert names(folder) == ["best", "latest", "update_00000001", "update_00000002", "update_00000003"]
    folder.save(4, *model_and_optimizer(), {}, best=True)
    assert names(folder) == ["best", "latest", "update_00000004"]


def test_max_to_keep_minus_one_keeps_all(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=-1)
    for update in range(5):
        folder.save(update, *model_and_optimizer(), {})
    assert updates(folder) == [0, 1, 2, 3, 4]


def test_checkpoints_from_before_a_resume_are_removed_first(tmp_path):
    """After update 40, the run resumes from 10 and saves 20 and 25: 30 and 40 are removed first."""
    folder = CheckpointFolder(tmp_path, max_to_keep=3)
    for update in (10, 30, 40):
        folder.save(update, *model_and_optimizer(), {})
    folder.save(20, *model_and_optimizer(), {})
    assert folder.latest().name == "update_00000020" and updates(folder) == [10, 20, 40]
    folder.save(25, *model_and_optimizer(), {})
    assert folder.latest().name == "update_00000025" and updates(folder) == [10, 20, 25]


@pytest.mark.parametrize("max_to_keep", [-1, 1, 3])
def test_checkpoint_of_the_same_update_is_replaced(tmp_path, max_to_keep):
    folder = CheckpointFolder(tmp_path, max_to_keep)
    model, optimizer = model_and_optimizer()
    folder.save(1, model, optimizer, {"attempt": 1})
    path = folder.save(1, model, optimizer, {"attempt": 2})
    assert '"attempt": 2' in (path / "state.json").read_text()
    assert names(folder) == ["latest", "update_00000001.1"]
    folder.save(1, model, optimizer, {"attempt": 3})
    assert names(folder) == ["latest", "update_00000001.2"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "checksums.sha256"])
def test_corrupt_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path, file):
    messages = []
    folder = CheckpointFolder(tmp_path, log=messages.append)
    for update in (1, 2):
        folder.save(update, *model_and_optimizer(), {})
    messages.clear()
    corrupt = folder.folder / "update_00000002" / file
    flip_bit(corrupt)
    assert folder.latest().name == "update_00000001"
    assert len(messages) == 1 and str(corrupt) in messages[0] and f"Using {folder.latest()} instead" in messages[0]
    corrupt.unlink()
    assert folder.latest().name == "update_00000001"


def test_no_valid_checkpoint_raises_user_error_instead_of_restarting(tmp_path):
    folder = CheckpointFolder(tmp_path)
    path = folder.save(1, *model_and_optimizer(), {})
    flip_bit(path / "state.json")
    with pytest.raises(UserError, match=r"no valid checkpoint: .*state\.json is corrupt.*checkpoint\.resume=false"):
        folder.latest()
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    with pytest.raises(UserError, match="latest names a missing checkpoint"):
        folder.latest()


def test_corrupt_resume_file_raises_user_error_instead_of_using_another_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for update in (1, 2):
        path = folder.save(update, *model_and_optimizer(), {})
    verify_named_checkpoint(path)
    flip_bit(path / "optimizer.safetensors")
    verify_named_checkpoint(path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"resume_file: .*optimizer\.safetensors is corrupt.* Choose another checkpoint"
    ):
        verify_named_checkpoint(path)
    flip_bit(path / "model.safetensors")
    with pytest.raises(UserError, match=r"resume_file: .*model\.safetensors is corrupt"):
        verify_named_checkpoint(path / "model.safetensors")
    with pytest.raises(UserError, match=r"not a complete checkpoint.*resume_pretrained"):
        verify_named_checkpoint(tmp_path)


def test_corrupt_pointer_is_reported_and_the_newest_checkpoint_is_used(tmp_path):
    messages = []
    folder = CheckpointFolder(tmp_path, log=messages.append)
    for update in (1, 2):
        folder.save(update, *model_and_optimizer(), {})
    pointer, messages[:] = folder.folder / "latest", []
    text = pointer.read_text()
    for corrupt in (text.replace("2 ", "1 "), text[:-9], "", "update_00000002\0", "\xff"):
        pointer.write_text(corrupt, encoding="latin-1")
        assert folder.latest().name == "update_00000002"
        assert f"{pointer} is corrupt" in messages.pop() and not messages


def test_leftovers_of_killed_saves_are_removed_by_the_next_save(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, *model_and_optimizer(), {})
    for leftover in (".update_00000002.writing", ".update_00000000.removed"):
        (folder.folder / leftover).mkdir()
        (folder.folder / leftover / "model.safetensors").touch()
    (folder.folder / ".latest.writing").touch()
    (folder.folder / ".notes").touch()
    assert folder.latest().name == "update_00000001"
    folder.save(3, *model_and_optimizer(), {})
    assert names(folder) == [".notes", "latest", "update_00000001", "update_00000003"]


def test_kill_before_the_pointers_are_written_leaves_the_old_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=1, log=lambda _: None)
    path = folder.save(1, *model_and_optimizer(), {})
    for unfinished in ("update_00000001.1", "update_00000002"):
        shutil.copytree(path, path.with_name(unfinished))
    assert folder.latest().name == "update_00000001"
    folder.save(2, *model_and_optimizer(), {})
    assert names(folder) == ["latest", "update_00000002.1"]


def test_background_save_writes_the_same_bytes_while_training_continues(tmp_path, monkeypatch):
    """The first save is delayed until the weights have changed; the next save waits for it."""
    model, optimizer = model_and_optimizer()
    foreground = CheckpointFolder(tmp_path / "foreground").save(1, model, optimizer, {"seconds": 1.0})
    changed, write = threading.Event(), Snapshot.write

    def delayed_write(self, folder):
        assert changed.wait(30)
        write(self, folder)

    monkeypatch.setattr(Snapshot, "write", delayed_write)
    folder = CheckpointFolder(tmp_path / "background", background=True)
    path = folder.save(1, model, optimizer, {"seconds": 1.0})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    folder.check()
    assert not path.exists()
    changed.set()
    folder.save(2, model, optimizer, {"seconds": 2.0})
    assert path.exists()
    folder.wait()
    assert folder.latest().name == "update_00000002"
    for file in sorted(foreground.iterdir()):
        assert file.read_bytes() == (path / file.name).read_bytes(), file.name
