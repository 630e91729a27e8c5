"""Work in fresh gloo processes, and the memory that a process has and had."""

import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing


def processes(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What ``work(rank, count, *arguments)`` returns in each of ``count`` fresh gloo processes."""
    run = tempfile.mkdtemp(dir=folder)
    multiprocessing.spawn(_process, (work, count, run, arguments), nprocs=count)
    return [torch.load(f"{run}/{rank}") for rank in range(count)]


def _process(rank: int, work: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    torch.save(work(rank, count, *arguments), f"{folder}/{rank}")
    gc.collect()  # FSDP holds process groups in cycles
    distributed.barrier()
    distributed.destroy_process_group()


def resident(what: str) -> int:
    """Bytes: ``VmRSS`` now, ``VmHWM`` the most since ``forget_peak``."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def forget_peak() -> int:
    """Sets the peak to what is resident now, and returns that."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")
