"""The error of a full disk says what frees enough space, and following it lets the run go on."""

import errno
import os
import re
import subprocess

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.training import checkpoint_folder, failed_save
from mmf_flava.training.checkpoint import GatheredState
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.disk import disk_usage

SIZE = 1_000_000  # bytes of the tensors of a checkpoint
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


def save(folder, update, best=False):
    tensor = torch.full((SIZE // 8,), float(update))
    optimizer = {"state": {0: {"exp_avg": tensor}}, "param_groups": []}
    folder.save(update, GatheredState({"weight": tensor}), GatheredState(optimizer), {"rng": []}, best)


def updates(folder):
    return sorted(int(path.name[-2:]) for path in folder.folder.glob("update_*"))


class Disk:
    """A small disk; its free space is reported, and writes beyond it fail early."""

    def __init__(self, folder, capacity):
        self.folder, self.capacity = folder, capacity

    def free(self, _):
        return self.capacity - disk_usage(self.folder)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path / "run", 0)
    for module in (checkpoint_folder, failed_save):
        monkeypatch.setattr(module, "free_space", disk.free)
    return disk


def follow(message, disk, max_to_keep):
    """Follow the advice of an error message, the last alternative if there are two; return ``max_to_keep``."""
    if found := re.search(r"set checkpoint\.max_to_keep=(-?\d+), which removes (\d)", message):
        max_to_keep = int(found[1])
        message = message.partition(", or ")[2]
    if found := re.search(r"[Ff]ree ([\d.,]+) (kB|MB|GB)", message):
        disk.capacity += int(float(found[1].replace(",", "")) * UNITS[found[2]])
    return max_to_keep


@pytest.mark.parametrize("best", [None, 1, 3])
@pytest.mark.parametrize("room", [1.9, 2.5, 4.1])
@pytest.mark.parametrize("max_to_keep", [1, 3])
def test_following_the_advice_once_lets_the_run_go_on(disk, max_to_keep, room, best):
    disk.capacity, errors, update = int(room * SIZE * 1.08), 0, 1
    folder = CheckpointFolder(disk.folder, max_to_keep, log=lambda _: None)
    while update <= 9:
        try:
            save(folder, update, best=update == best)
            update += 1
        except UserError as error:
            errors += 1
            kept = updates(folder)
            resumes = f"resume from update_{kept[-1]:08d}, which is valid" in str(error)
            assert resumes and not list(folder.folder.glob(".*")), error
            max_to_keep = follow(str(error), disk, folder.retention.max_to_keep)
            folder = CheckpointFolder(disk.folder, max_to_keep, log=lambda _: None)
            assert folder.latest().name == f"update_{kept[-1]:08d}"
            folder.make_room(kept[-1] + 1)
            assert best is None or best >= update or best in updates(folder)
    assert errors <= (1 if best is None or best == 1 else 2)  # a first best checkpoint needs additional room


def test_max_to_keep_is_suggested_only_if_it_frees_something(disk):
    disk.capacity = int(2.6 * SIZE)
    folder = CheckpointFolder(disk.folder, 3)
    save(folder, 1, best=True)
    save(folder, 2)
    with pytest.raises(UserError) as raised:
        save(folder, 3)
    assert re.search(
        r"it needs 1\.1 MB, and 0\.\d MB are free|it needs 1\.1 MB, and \d+\.\d kB are free", str(raised.value)
    )
    assert "checkpoint.max_to_keep" not in str(raised.value) and updates(folder) == [1, 2]


def test_a_quota_and_other_files(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path, 3)
    for update in (1, 2, 3):
        save(folder, update)
    earlier = tmp_path / "previous/1/checkpoints/model"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(bytes(2_000_000))
    assert re.fullmatch(
        rf"Free some space \(earlier runs in {tmp_path}/previous take 2\.\d MB\), or set checkpoint\.max_to_keep=2, "
        r"which removes 2 checkpoints \(2\.\d MB\)",
        folder.ways_to_free_space(),
    )

    def full(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(checkpoint_folder, "write_checksums", full)
    with pytest.raises(UserError, match=r"quota exceeded; it needs 1\.1 MB\)\. Free some .*max_to_keep=2, which"):
        save(folder, 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_tmpfs(tmp_path):
    """The disk has room for three checkpoints: five are kept, then as many as the message says."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3500k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mount is not permitted")
    try:
        folder = CheckpointFolder(tmp_path, 5, log=lambda _: None)
        for update in (1, 2, 3):
            save(folder, update)
        with pytest.raises(UserError, match=r"or set checkpoint\.max_to_keep=3, which removes 1 checkpoint") as raised:
            save(folder, 4)
        assert "no space left on device" in str(raised.value)
        folder = CheckpointFolder(tmp_path, 3, log=lambda _: None)
        assert folder.latest().name == "update_00000003"
        for update in range(4, 10):
            save(folder, update)
        assert updates(folder) == [7, 8, 9]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
