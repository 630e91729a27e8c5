"""Full disks, read-only folders and two jobs in one folder: checkpoints are kept, and an error names the fix."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from safetensors import SafetensorError

from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.training import checkpoint, checkpoint_folder
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.disk import explain_disk_errors
from mmf_flava.training.lock import LOCK, RunLock
from tests.conftest import DEMO, SCRIPTS, SHORT
from tests.faults.chaos import load_update, save

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FULL_INSIDE = SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }')


@pytest.mark.parametrize(
    ("module", "name", "call", "error"),
    [
        (checkpoint, "save_file", 1, FULL_INSIDE),
        (checkpoint, "save_file", 2, FULL_INSIDE),
        (checkpoint_folder, "write_checksums", 1, FULL),
        *((atomic, "fsync", call, FULL) for call in (1, 2, 6, 7)),
        (checkpoint_folder, "pointer_text", 1, FULL),
        (atomic.os, "replace", 1, FULL),
        (atomic.os, "replace", 2, FULL),
    ],
)
def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch, module, name, call, error):
    """The ``call``-th call of a function fails once; then there is space again."""
    folder = CheckpointFolder(tmp_path, max_to_keep=1)
    save(folder, 1)
    calls, real = [], getattr(module, name)

    def full(*args, **options):
        calls.append(args)
        if len(calls) == call:
            raise error
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        with pytest.raises(UserError) as caught:
            save(folder, 2)
    message = str(caught.value)
    for words in (
        "update 2",
        str(folder.folder),
        "no space left",
        "Free some space",
        "update_00000001, which is valid",
    ):
        assert words in message
    assert not list(folder.folder.glob(".update_*"))
    assert load_update(CheckpointFolder(tmp_path).latest()) >= 1
    save(folder, 3)
    assert load_update(folder.latest()) == 3
    assert sorted(path.name for path in folder.folder.iterdir()) == ["latest", "update_00000003"]


def test_file_size_limit_in_a_background_save(tmp_path):
    """The write of safetensors fails in the thread, and ``check`` raises the error."""
    folder = CheckpointFolder(tmp_path, background=True)
    save(folder, 1)
    folder.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        save(folder, 2)
        deadline = time.monotonic() + 30
        with pytest.raises(UserError, match=r"update 2 .*file too large.*update_00000001, which is valid"):
            while time.monotonic() < deadline:
                folder.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    save(folder, 3)
    folder.wait()
    assert load_update(folder.latest()) == 3


def test_read_only_folder(unprivileged):
    folder = CheckpointFolder(unprivileged, log=lambda _: None)
    save(folder, 1)
    folder.folder.chmod(0o555)
    with pytest.raises(UserError, match=r"update 2 .*permission denied\)\. Make the folder writable.*update_00000001"):
        save(folder, 2)
    folder.folder.chmod(0o755)
    assert load_update(folder.latest()) == 1

    unprivileged.chmod(0o555)
    with pytest.raises(
        UserError, match=r"env\.save_dir: .* cannot be written to \(permission denied\).*choose another"
    ):
        RunLock(unprivileged)
    unprivileged.chmod(0o755)


def test_full_disk_for_another_file_of_the_run(tmp_path):
    message = r"metrics\.jsonl cannot be written \(no space left on device\)\. Free some"
    with pytest.raises(UserError, match=message), explain_disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
    with pytest.raises(FileNotFoundError), explain_disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()


HOLDER = """
import os, sys, time
from pathlib import Path
from mmf_flava.training.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
worker = os.fork()  # like a data loader worker, which outlives a killed parent for a while
if worker:
    print(worker, flush=True)
time.sleep(60)
"""


def test_lock_is_exclusive_and_released_when_the_process_dies(tmp_path):
    job = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    worker = int(job.stdout.readline())
    try:
        with pytest.raises(
            UserError, match=rf"{tmp_path} is in use by process {job.pid} on .*\. Wait until that job exits, or"
        ):
            RunLock(tmp_path)
        job.send_signal(signal.SIGKILL)
        job.wait()
        RunLock(tmp_path)
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    finally:
        os.kill(worker, signal.SIGKILL)
        job.kill()


def test_file_system_without_locks_logs_a_warning(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("mmf_flava.training.lock.fcntl.lockf", no_locks)
    messages = []
    RunLock(tmp_path, messages.append)
    assert len(messages) == 1 and "does not support locks" in messages[0]


def test_mmf_run_reports_a_locked_folder_and_a_full_disk(mmf, cache, tmp_path):
    """After a run, its folder is locked, then its disk is full: exit code 2, a one-line error, the old checkpoint."""
    assert mmf("mmf_run", "evaluation.examples=null").returncode == 0
    more = ["checkpoint.resume=true", "training.max_updates=6"]
    lock = RunLock(tmp_path / "run")
    held = mmf("mmf_run", *more)
    assert held.returncode == 2 and "Traceback" not in held.stderr
    assert f"process {os.getpid()} on" in held.stderr.strip().splitlines()[-1]
    lock._file.close()

    size = (tmp_path / "run/checkpoints/update_00000004/model.safetensors").stat().st_size
    full = subprocess.run(
        [SCRIPTS / "mmf_run", f"config={DEMO}", *SHORT, f"env.save_dir={tmp_path / 'run'}", *more],
        env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert full.returncode == 2 and "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert "update 6 could not be written" in last and "update_00000004, which is valid" in last
    assert CheckpointFolder(tmp_path / "run").latest().name == "update_00000004"
