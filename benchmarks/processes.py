"""Helpers to run functions in new gloo processes and to measure resident memory."""

import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing


def run_processes(function: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """Run ``function(rank, count, *arguments)`` in ``count`` new gloo processes. Return the results by rank."""
    run = tempfile.mkdtemp(dir=folder)
    multiprocessing.spawn(_process, (function, count, run, arguments), nprocs=count)
    return [torch.load(f"{run}/{rank}") for rank in range(count)]


def _process(rank: int, function: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    torch.save(function(rank, count, *arguments), f"{folder}/{rank}")
    gc.collect()  # FSDP keeps process groups in reference cycles
    distributed.barrier()
    distributed.destroy_process_group()


def resident_memory(field: str) -> int:
    """Return resident memory in bytes. ``VmRSS``: current; ``VmHWM``: peak since ``reset_peak_memory``."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def reset_peak_memory() -> int:
    """Reset the peak of resident memory to the current value, and return it in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident_memory("VmRSS")
