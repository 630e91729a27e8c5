"""Lock on a run folder: only one training job at a time can write to it."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.training.disk import diagnose_disk_error

LOCK = ".lock"
MMF_CHECKPOINT = "current.ckpt"


def refuse_folder_of_mmf(folder: Path) -> None:
    """Raise UserError if a run folder has checkpoints of MMF's trainer, from which the trainer ``flava`` cannot resume.

    Their weights can be loaded, but optimizer, schedule and order of the data are those of another trainer.
    """
    if (folder / MMF_CHECKPOINT).is_file() and not (folder / "checkpoints").is_dir():
        raise UserError(
            f"env.save_dir: {folder} has checkpoints of MMF's trainer, from which training.trainer: flava cannot "
            f"resume. Load their weights in another folder: checkpoint.resume_file={folder / MMF_CHECKPOINT} "
            "checkpoint.resume_pretrained=true env.save_dir=NEW_FOLDER"
        )


class RunLock:
    """A POSIX record lock on the run folder, held until the process exits.

    The lock file contains the process ID and the host name. Child processes do not inherit record locks. An
    ``flock`` lock would be inherited: the data loader workers of a killed job would keep the folder locked until they
    exit.

    Args:
        folder: the run folder; created if missing.
        log: function that logs a warning if the file system does not support locks.

    Raises:
        UserError: another job holds the lock, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, log: Callable[[str], None] = print) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (open until exit)
        except OSError as error:
            reason, fix = diagnose_disk_error(error)
            raise UserError(f"env.save_dir: {folder} cannot be written to ({reason}). {fix}.") from None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log(f"Warning: the file system of {folder} does not support locks. Run only one job in it at a time.")
                return
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"env.save_dir: {folder} is in use by {holder}. Wait until that job exits, or set another folder."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
