"""Checkpoints: whole or not at all; the newest ones and the best one stay."""

import threading

import pytest
import torch
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint import Snapshot
from mmf_flava.training.checkpoint_folder import CheckpointFolder, demand_whole


def toy():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def numbers(folder):
    return [int(path.name.removeprefix("update_")) for path in sorted(folder.folder.glob("update_*"))]


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_latest_names_the_newest_complete_checkpoint_and_old_ones_go(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=2)
    assert folder.latest() is None and folder.best() is None
    for update in (5, 10, 15):
        folder.save(update, *toy(), {})
    assert folder.latest().name == "update_00000015"
    assert names(folder) == ["latest", "update_00000010", "update_00000015"]


def test_the_best_one_stays_until_a_better_one_comes(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=1)
    folder.save(1, *toy(), {})
    with pytest.raises(UserError, match=r"names no checkpoint as the best one; checkpoint\.resume_best=false"):
        folder.best()
    for update, best, kept in ((2, True, [2]), (3, False, [2, 3]), (4, False, [2, 4]), (5, True, [5])):
        folder.save(update, *toy(), {}, best)
        assert numbers(folder) == kept
    assert folder.best().name == folder.latest().name == "update_00000005"
    flip(folder.best() / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged.*It is the best checkpoint"):
        folder.best()


def test_the_best_one_stays_where_its_name_is_damaged_or_its_update_comes_again(tmp_path):
    said = []
    folder = CheckpointFolder(tmp_path, max_to_keep=1, say=said.append)
    folder.save(1, *toy(), {"course": "old"}, best=True)
    folder.save(1, *toy(), {"course": "new"})
    folder.save(2, *toy(), {})
    assert '"course": "old"' in (folder.best() / "state.json").read_text()
    assert folder.latest().name == "update_00000002"
    flip(folder.folder / "best")
    folder.save(3, *toy(), {})
    assert f"{folder.folder / 'best'} is damaged" in said[-2]
    assert names(folder) == ["best", "latest", "update_00000001.replaced", "update_00000002", "update_00000003"]
    folder.save(4, *toy(), {}, best=True)
    assert names(folder) == ["best", "latest", "update_00000004"]


def test_minus_one_keeps_all(tmp_path):
    folder = CheckpointFolder(tmp_path, max_to_keep=-1)
    for update in range(5):
        folder.save(update, *toy(), {})
    assert numbers(folder) == [0, 1, 2, 3, 4]


def test_a_run_that_goes_on_from_an_older_checkpoint_keeps_its_own_first(tmp_path):
    """After 40, the run goes on from 10 and saves 20 and 25: those that an earlier course left are the ones to go."""
    folder = CheckpointFolder(tmp_path, max_to_keep=3)
    for update in (10, 30, 40):
        folder.save(update, *toy(), {})
    folder.save(20, *toy(), {})
    assert folder.latest().name == "update_00000020" and numbers(folder) == [10, 20, 40]
    folder.save(25, *toy(), {})
    assert folder.latest().name == "update_00000025" and numbers(folder) == [10, 20, 25]


def test_the_same_update_is_replaced(tmp_path):
    folder = CheckpointFolder(tmp_path)
    model, optimizer = toy()
    folder.save(1, model, optimizer, {"try": 1})
    path = folder.save(1, model, optimizer, {"try": 2})
    assert '"try": 2' in (path / "state.json").read_text()
    assert names(folder) == ["latest", "update_00000001"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "checksums.sha256"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, file):
    said = []
    folder = CheckpointFolder(tmp_path, say=said.append)
    for update in (1, 2):
        folder.save(update, *toy(), {})
    said.clear()
    damaged = folder.folder / "update_00000002" / file
    flip(damaged)
    assert folder.latest().name == "update_00000001"
    assert len(said) == 1 and str(damaged) in said[0] and "Used instead" in said[0]
    damaged.unlink()
    assert folder.latest().name == "update_00000001"


def test_none_that_is_whole_is_refused_and_not_taken_for_a_new_run(tmp_path):
    folder = CheckpointFolder(tmp_path)
    path = folder.save(1, *toy(), {})
    flip(path / "state.json")
    with pytest.raises(UserError, match=r"is whole: .*state\.json is damaged.*checkpoint\.resume=false"):
        folder.latest()
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    with pytest.raises(UserError, match="latest names one that is gone"):
        folder.latest()


def test_one_that_is_named_is_refused_and_not_replaced(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for update in (1, 2):
        path = folder.save(update, *toy(), {})
    demand_whole(path)
    flip(path / "optimizer.safetensors")
    demand_whole(path / "model.safetensors")
    with pytest.raises(UserError, match=r"resume_file: .*optimizer\.safetensors is damaged.* Name another one"):
        demand_whole(path)
    flip(path / "model.safetensors")
    with pytest.raises(UserError, match=r"resume_file: .*model\.safetensors is damaged"):
        demand_whole(path / "model.safetensors")
    with pytest.raises(UserError, match=r"no whole checkpoint.*resume_pretrained"):
        demand_whole(tmp_path)


def test_a_damaged_pointer_costs_nothing(tmp_path):
    said = []
    folder = CheckpointFolder(tmp_path, say=said.append)
    for update in (1, 2):
        folder.save(update, *toy(), {})
    pointer, said[:] = folder.folder / "latest", []
    text = pointer.read_text()
    for damaged in (text.replace("2 ", "1 "), text[:-9], "", "update_00000002\0", "\xff"):
        pointer.write_text(damaged, encoding="latin-1")
        assert folder.latest().name == "update_00000002"
        assert f"{pointer} is damaged" in said.pop() and not said


def test_leftovers_of_killed_saves_go_with_the_next(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, *toy(), {})
    for leftover in (".update_00000002.writing", ".update_00000000.removed"):
        (folder.folder / leftover).mkdir()
        (folder.folder / leftover / "model.safetensors").touch()
    (folder.folder / ".latest.writing").touch()
    (folder.folder / ".notes").touch()
    assert folder.latest().name == "update_00000001"
    folder.save(3, *toy(), {})
    assert names(folder) == [".notes", "latest", "update_00000001", "update_00000003"]


def test_a_kill_while_the_same_update_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path, max_to_keep=1, say=lambda _: None)
    path = folder.save(1, *toy(), {})
    path.rename(path.with_name("update_00000001.replaced"))
    assert folder.latest().name == "update_00000001.replaced"
    folder.save(1, *toy(), {})
    assert names(folder) == ["latest", "update_00000001"]


def test_in_the_background_the_same_bytes_are_written_while_training_goes_on(tmp_path, monkeypatch):
    """The save waits until the weights have moved; the next save waits for it."""
    model, optimizer = toy()
    foreground = CheckpointFolder(tmp_path / "foreground").save(1, model, optimizer, {"seconds": 1.0})
    moved, write = threading.Event(), Snapshot.write

    def late(self, folder):
        assert moved.wait(30)
        write(self, folder)

    monkeypatch.setattr(Snapshot, "write", late)
    folder = CheckpointFolder(tmp_path / "background", background=True)
    path = folder.save(1, model, optimizer, {"seconds": 1.0})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    folder.check()
    assert not path.exists()
    moved.set()
    folder.save(2, model, optimizer, {"seconds": 2.0})
    assert path.exists()
    folder.wait()
    assert folder.latest().name == "update_00000002"
    for file in sorted(foreground.iterdir()):
        assert file.read_bytes() == (path / file.name).read_bytes(), file.name
