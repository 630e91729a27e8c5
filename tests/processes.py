"""Processes of tests, forked by a server that has imported MMF: a process starts in a fraction of a second.

The server has no threads and does nothing else. A process forked by the tests' own process, which has threads, could
wait for ever for a lock that one of them held. The environment is that of the first start, and MMF's registry is new.
"""

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing import start_processes

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.imported_mmf"])


def run_ranks(function: Callable[..., None], args: tuple[Any, ...], count: int) -> None:
    """Call ``function(rank, *args)`` in ``count`` processes. An exception in one of them is raised here."""
    start_processes(function, args, nprocs=count, start_method="forkserver")


@contextmanager
def process_group(rank: int, folder: str, count: int = 2) -> Iterator[dict[Any, Any]]:
    """Join a gloo process group, with one thread. The first process saves the yielded dict to ``folder``/results."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    results: dict[Any, Any] = {}
    yield results
    if rank == 0:
        torch.save(results, f"{folder}/results")
    gc.collect()  # FSDP keeps process groups in reference cycles
    distributed.barrier()
    distributed.destroy_process_group()
