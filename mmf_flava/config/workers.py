"""Checks that this machine can run data loader workers: open files and shared memory.

Without them, workers wait for a timeout of minutes, or die from a bus error.
"""

import os
import resource
import sys
from pathlib import Path

from mmf_flava.errors import UserError

# measured with torch 2: open files of the main process
FILES_PER_LOADER = 2
FILES_PER_WORKER = 4  # its queue and its process
TENSORS_PER_BATCH = 10  # one open file per tensor of a batch that a worker has sent
FILES_OF_READERS = 32  # shards, logs, connections
SPARE_FILES = 512  # added if the limit can be raised
SHARED_BYTES = 2 << 20  # per worker; one batch needs more in most runs
SHARED_MEMORY = Path("/dev/shm")


def check_workers(workers: int, loaders: int = 1, where: str = "training.num_workers") -> None:
    """Raise the limit of open files if necessary. Call this before workers start; without workers it does nothing.

    Args:
        workers: number of workers per data loader.
        loaders: number of data loaders that run at the same time.
        where: config key or option with the number of workers, for messages.

    Raises:
        UserError: this machine allows too few open files, or its shared memory is missing or too small.
    """
    if workers < 1:
        return
    total = f"{where}: {workers * loaders} data loader workers need"
    remedy = f"or set {where} to 0"
    _check_shared_memory(total, remedy, workers * loaders)
    needed = len(os.listdir("/proc/self/fd")) + FILES_OF_READERS
    needed += loaders * (FILES_PER_LOADER + workers * (FILES_PER_WORKER + TENSORS_PER_BATCH))
    if (allowed := raise_file_limit(needed)) < needed:
        raise UserError(
            f"{total} about {needed} open files, but at most {allowed} are allowed. Raise the limit with `ulimit -n "
            f"{needed}` (or in /etc/security/limits.conf), {remedy}."
        )


def raise_file_limit(needed: int) -> int:
    """Raise the limit of open files to ``needed`` and ``SPARE_FILES`` more, as far as possible. Return the limit.

    Processes that are started later have the same limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    if soft < needed + SPARE_FILES:
        soft = needed + SPARE_FILES if hard == resource.RLIM_INFINITY else min(needed + SPARE_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _check_shared_memory(total: str, remedy: str, workers: int) -> None:
    needed = workers * SHARED_BYTES >> 20
    fix = f"Mount it, in Docker with --shm-size=8g, {remedy}."
    if not SHARED_MEMORY.is_dir() or not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        raise UserError(f"{total} shared memory, but {SHARED_MEMORY} is missing or not writable. {fix}")
    stat = os.statvfs(SHARED_MEMORY)
    free = stat.f_bavail * stat.f_frsize >> 20
    if free < needed:
        raise UserError(
            f"{total} at least {needed} MiB of shared memory, but {SHARED_MEMORY} has only {free} MiB free. Enlarge "
            f"it, in Docker with --shm-size=8g, {remedy}."
        )
