"""Rank, world size and small collective operations. Without a process group, a single process is assumed."""

import os

import torch
from torch import distributed


def world_size() -> int:
    """Return the number of processes; 1 if there is no process group."""
    running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if running else 1


def processes_on_this_machine(world_size: int) -> int:
    """Return how many of ``world_size`` processes run on this machine: all of them, if the launcher does not tell."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")  # set by torchrun
    return min(int(local), world_size) if local.isdecimal() and int(local) > 0 else world_size


def rank() -> int:
    """Return the rank of this process; 0 if there is no process group."""
    return distributed.get_rank() if world_size() > 1 else 0


def wait_for_all() -> None:
    """Block until every process has called this function."""
    if world_size() > 1:
        distributed.barrier()


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` over all processes; ``values`` is modified in place."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def gather_on_first(value: object) -> list:
    """Return a list with the ``value`` of every process on the first process, and an empty list on the others."""
    if world_size() == 1:
        return [value]
    values: list[object] | None = [None] * world_size() if rank() == 0 else None
    distributed.gather_object(value, values)
    return values or []


def gather_objects(value: object) -> list:
    """Return a list with the ``value`` of every process, in rank order. The values must be picklable."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values
