"""Losses that would spoil the weights: all processes skip such an update together, and its samples are named."""

import json
import logging
import math
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.ranks import mean_over_ranks, world_size

logger = logging.getLogger(__name__)

IN_A_ROW = 10  # skipped updates one after another that end a run
WINDOW = 128  # updates of a dataset that a spike is told by
NOT_FINITE, SPIKE = "not finite", "spike"


class LossGuard:
    """Looks at an update's losses between its backward passes and its step.

    An update is skipped where a loss of any process is NaN or infinite, and, with ``sigma``, where the total loss lies
    more than so many standard deviations above the mean of the dataset's last ``WINDOW`` updates.

    Args:
        file: JSON lines, one for each batch of a skipped update: update, dataset, reason, losses, sample_ids.
        sigma: None leaves spikes alone.
        say: is told of every skipped update.
    """

    def __init__(
        self, file: str | Path, sigma: float | None = None, say: Callable[[str], None] = logger.warning
    ) -> None:
        self.file, self.sigma, self.say = Path(file), sigma, say
        self.in_a_row = 0
        self.windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._batches: list[tuple[str, list[str], dict[str, Tensor]]] = []

    def note(self, batch: Mapping[str, Any], losses: dict[str, Tensor]) -> None:
        """Notes one batch of this update; its losses stay on their device."""
        means = {name: loss.detach().float().mean() for name, loss in losses.items()}
        self._batches.append((batch["dataset_name"], list(batch["sample_id"]), means))

    def skips(self, update: int) -> bool:
        """Whether the update whose batches were noted is to be skipped; every process must call it.

        Raises:
            UserError: so many updates were skipped one after another that going on makes no sense.
        """
        batches, self._batches = self._batches, []
        totals = [torch.stack([*losses.values()]).sum() for _, _, losses in batches if losses]
        if not totals:
            return False
        total = torch.stack(totals).mean()
        # an infinite loss cannot be averaged, so that its finite stand-in goes with a mark
        bad = ~torch.stack([loss.isfinite().all() for _, _, found in batches for loss in found.values()]).all()
        both = mean_over_ranks(torch.stack([bad.to(total), total.nan_to_num(0.0, 0.0, 0.0)]))
        share_bad, mean = both.tolist()
        name = batches[0][0]
        reason = NOT_FINITE if share_bad else SPIKE if self._is_spike(name, mean) else None
        if reason is None:
            self.in_a_row = 0
            self.windows[name].append(mean)
            return False
        self.in_a_row += 1
        self._write(update, reason, batches)
        losses = "; ".join(_sentence(found) for _, _, found in batches)
        self.say(f"update {update + 1} on {name} is skipped, {reason}: {losses}; {self.file} names the samples")
        if self.in_a_row == IN_A_ROW:
            raise UserError(
                f"{IN_A_ROW} updates in a row had to be skipped, {reason}, the last one at update {update + 1} "
                f"({losses}; {self.file} names the samples): lower optimizer.params.lr or set "
                "training.clip_gradients=true with training.max_grad_l2_norm, and go on from the last checkpoint."
            )
        return True

    def _is_spike(self, name: str, mean: float) -> bool:
        window = self.windows[name]
        if self.sigma is None or len(window) < WINDOW:
            return False
        return mean > statistics.fmean(window) + self.sigma * max(statistics.pstdev(window), 1e-12)

    def _write(self, update: int, reason: str, batches: list[tuple[str, list[str], dict[str, Tensor]]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            for name, sample_ids, losses in batches:
                # JSON has no word for NaN
                values = {key.rpartition("/")[2]: _number(loss) for key, loss in losses.items()}
                line = {"update": update + 1, "dataset": name, "reason": reason, "losses": values}
                file.write(json.dumps({**line, "sample_ids": sample_ids}) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, as JSON holds it."""
        return {"in_a_row": self.in_a_row, "windows": {name: list(window) for name, window in self.windows.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as that state was."""
        self.in_a_row = state["in_a_row"]
        self.windows.clear()
        for name, window in state["windows"].items():
            self.windows[name].extend(window)


def _number(loss: Tensor) -> float | str:
    value = loss.item()
    return value if math.isfinite(value) else str(value)


def _sentence(losses: dict[str, Tensor]) -> str:
    where = " on this process" if world_size() > 1 else ""
    return ", ".join(f"{name.rpartition('/')[2]} {loss.item():g}" for name, loss in losses.items()) + where
