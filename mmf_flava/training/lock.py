"""One training job at a time in a run's folder."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.training.disk import reason_and_remedy

LOCK = ".lock"


class RunLock:
    """Held from its making to the end of this process, however that ends; the file stays, and says who holds it.

    A record lock belongs to the process alone. One of ``flock`` would be inherited by the workers that a data loader
    forks, and keep a killed job's folder locked until the last of them has noticed.

    Args:
        folder: the run's; made where it is not there.
        say: is told where the file system has no locks.

    Raises:
        UserError: another job has the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as the process)
        except OSError as error:
            reason, remedy = reason_and_remedy(error)
            raise UserError(f"env.save_dir: {folder} cannot be written to ({reason}): {remedy}.") from None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                say(f"{folder} is on a file system without locks: see to it that no other job trains in it.")
                return
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"env.save_dir: {holder} trains in {folder}; wait for its end, or choose another folder."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
