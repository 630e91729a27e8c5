"""The processes of a run: how many there are, which one this is, and what they tell one another."""

import torch
from torch import distributed


def world_size() -> int:
    """Processes that work together; 1 without a process group."""
    running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if running else 1


def rank() -> int:
    """Of this process among those that work together; 0 without a process group."""
    return distributed.get_rank() if world_size() > 1 else 0


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if world_size() > 1:
        distributed.barrier()


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of the processes' values, on every process."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def gather_objects(value: object) -> list:
    """The values of all processes, in rank order, on every process; only for what is small and plain."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values
