"""Processes of tests, forked by a server that has imported MMF: a process starts in a fraction of a second.

The server has no threads and does nothing else. A process forked by the tests' own process, which has threads, could
wait for ever for a lock that one of them held. The environment is that of the first start, and MMF's registry is new.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import start_processes

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.imported_mmf"])


def run_ranks(function: Callable[..., None], args: tuple[Any, ...], count: int) -> None:
    """Call ``function(rank, *args)`` in ``count`` processes. An exception in one of them is raised here."""
    start_processes(function, args, nprocs=count, start_method="forkserver")
