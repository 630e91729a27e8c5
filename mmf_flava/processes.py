"""Rank, world size and small collective operations. Without a process group, a single process is assumed."""

import os

import torch
from torch import distributed

from mmf_flava.errors import UserError


def launched() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that the launcher started, without a process group.

    torchrun sets the environment variables RANK and WORLD_SIZE.

    Raises:
        UserError: they are not valid.
    """
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(value.isdecimal() for value in values) and int(values[0]) < int(values[1]):
        return int(values[0]), int(values[1])
    raise UserError(
        f"RANK={values[0]} and WORLD_SIZE={values[1]} are not a rank and a number of processes. Start the processes "
        "with torchrun, or set RANK to 0, 1, ..., WORLD_SIZE - 1."
    )


def local_device(name: str) -> str:
    """Return the device of this process, given the device of all: the GPU with the local rank as index for ``cuda``."""
    local = os.environ.get("LOCAL_RANK", "")  # set by torchrun
    # a launcher may show only one GPU to each process
    return f"cuda:{local}" if name == "cuda" and local.isdecimal() and torch.cuda.device_count() > 1 else name


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
