"""Forward passes over a dataset: the batches are dealt to the processes, the results are gathered in file order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from mmf_flava.data.map_stream import prepare_batch
from mmf_flava.data.quarantine import LEFT_OUT
from mmf_flava.evaluation.rounds import Rounds
from mmf_flava.losses.counts import LossCounts
from mmf_flava.processes import gather_on_first

T = TypeVar("T")
# counts of the batch's values, the batch on the device, the model's output
Read = Callable[[LossCounts, Any, Any], T]
# of a batch: its field ``left_out``, and what was read from its output, or None if it has no good samples
Part = tuple[list[dict[str, Any] | None], T | None]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: the model is in evaluation mode. Afterwards, each module is in its former mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def forward_pass(model: Any, dataset: Any, rounds: Rounds, device: torch.device, read: Read[T]) -> list[Part[T]]:
    """Run the model on all samples of a dataset. All processes must call this function.

    Args:
        read: takes what is needed from the output of a batch. Its result must be picklable and on the CPU.

    Returns:
        On the first process, an entry per batch in file order; nothing on the other processes.
    """
    spans = rounds.spans(len(dataset))
    loader = rounds.load(dataset, rounds.own(spans))
    parts: list[Part[T]] = []
    for span, is_own in rounds.deal(spans):
        part = None
        if span is not None:
            batch = next(loader)
            if is_own:
                rounds.on_batch(batch)
            part = batch[LEFT_OUT], _forward(model, dataset, rounds, device, batch, read)
        parts += [part for part in gather_on_first(part if is_own else None) if part is not None]
    return parts


def _forward(model: Any, dataset: Any, rounds: Rounds, device: torch.device, batch: Any, read: Read[T]) -> T | None:
    forwarded = rounds.with_samples(dataset, batch)
    if forwarded is None:
        return None
    counts = LossCounts.count(model, forwarded)
    prepared = prepare_batch(dataset, forwarded, device)
    found = read(counts, prepared, model(prepared))
    return found if forwarded is batch else None


def to_cpu(value: Any) -> Any:
    """Return a tensor detached and on the CPU; other values unchanged."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
