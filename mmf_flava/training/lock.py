"""A lock that allows one training job at a time in a run folder."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.training.disk import diagnose_disk_error

LOCK = ".lock"


class RunLock:
    """A lock on the run folder, held until the process exits; the lock file names the process that holds it.

    It is a POSIX record lock, which belongs to one process. Data loader workers would inherit an ``flock`` lock and
    keep the folder of a killed job locked until they exit.

    Args:
        folder: the run folder; created if missing.
        log: called with a warning if the file system does not support locks.

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
                log(f"Warning: the file system of {folder} does not support locks. Do not run another job in it.")
                return
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"env.save_dir: {folder} is in use by {holder}. Wait until it exits, or choose another folder."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
