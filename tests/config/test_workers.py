"""Limits of the machine on data loader workers: open files and shared memory."""

import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mmf_flava.config import workers
from mmf_flava.config.workers import check_workers
from mmf_flava.data.sampling import MultitaskLoader, build_batch_loader
from mmf_flava.errors import UserError


@pytest.fixture
def limits(monkeypatch):
    """Replace the limits of open files by a list [soft, hard]."""
    values = [64, 64]

    def set_limit(name, new):
        assert new[0] <= new[1] or new[1] == resource.RLIM_INFINITY
        values[:] = new

    monkeypatch.setattr(resource, "getrlimit", lambda name: tuple(values))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    monkeypatch.setattr(os, "listdir", lambda path: ["0"] * 20)
    return values


def test_too_few_open_files_are_refused_with_the_number_needed(limits):
    needed = 20 + 32 + 3 * (2 + 2 * 14)
    with pytest.raises(UserError, match=r"^training\.num_workers: .* or set training\.num_workers to 0\.$") as raised:
        check_workers(2, loaders=3)
    assert f"6 data loader workers need about {needed} open files, but at most 64 are allowed" in str(raised.value)
    assert f"`ulimit -n {needed}`" in str(raised.value)
    with pytest.raises(UserError, match=r"^--workers: 2 .* set --workers to 0"):
        check_workers(2, where="--workers")
    limits[:] = [needed, needed]
    check_workers(2, loaders=3)
    assert limits == [needed, needed]


def test_without_workers_nothing_is_checked(limits, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path / "missing")
    check_workers(0, loaders=3)
    assert limits == [64, 64]


@pytest.mark.parametrize("hard", [4096, resource.RLIM_INFINITY])
def test_the_soft_limit_is_raised_up_to_the_hard_limit(limits, hard):
    limits[:] = [64, hard]
    check_workers(2)
    assert limits == [20 + 32 + 2 + 2 * 14 + 512, hard]
    limits[:] = [1 << 20, hard]
    check_workers(2)
    assert limits == [1 << 20, hard]
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    check_workers(1000)
    assert limits == [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    limits[:] = [64, 100]
    check_workers(2)
    assert limits == [100, 100]


def test_missing_or_small_shared_memory_is_refused(limits, monkeypatch, tmp_path):
    limits[:] = [4096, 4096]
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path / "shm")
    with pytest.raises(UserError, match=r"shm is missing or not writable\. .*--shm-size=8g.*num_workers to 0\.$"):
        check_workers(4)
    (tmp_path / "shm").mkdir()
    check_workers(4)
    stat = SimpleNamespace(f_bavail=8 << 8, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: stat)
    check_workers(4)
    stat.f_bavail -= 1
    with pytest.raises(UserError, match=r"need at least 8 MiB of shared memory, but .*shm has only 7 MiB free"):
        check_workers(4)


def test_loaders_check_the_limits_before_their_workers_start(limits):
    datasets = {"a": range(4), "b": range(4)}
    schedule = SimpleNamespace(names=["a", "b"], dataset_at=lambda step: "a")
    with pytest.raises(UserError, match="4 data loader workers"):
        MultitaskLoader(datasets, schedule, batch_size=2, num_workers=2)
    with pytest.raises(UserError, match="2 data loader workers"):
        build_batch_loader(range(4), [[0]], num_workers=2)


def test_limits_of_a_process():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from mmf_flava.config.workers import check_workers
from mmf_flava.errors import UserError
try:
    check_workers(2)
except UserError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("training.num_workers: 2 data loader workers need about"), result.stderr
    assert "but at most 64 are allowed" in result.stdout
