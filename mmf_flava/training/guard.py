"""Skips updates with NaN, infinite or unusually large losses or gradients on all processes."""

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
from mmf_flava.processes import mean_over_ranks, world_size
from mmf_flava.training.precision import total_norm

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_SKIPS = 10  # the run stops after this many skipped updates in a row
WINDOW = 128  # number of updates for the mean and standard deviation of a dataset's loss
NOT_FINITE, SPIKE, GRADIENT = "not finite", "spike", "gradient not finite"


class UpdateGuard:
    """Decides whether to skip an update. Called after the backward passes, before the optimizer step.

    An update is skipped if a loss or the norm of the gradients on any process is NaN or infinite. With ``sigma``, an
    update is also skipped if its total loss is more than ``sigma`` standard deviations above the mean of the dataset's
    last ``WINDOW`` updates.

    Args:
        file: JSON Lines file with a record for each batch of a skipped update: update, dataset, reason, losses,
            sample_ids.
        sigma: threshold of spike detection in standard deviations; None disables spike detection.
        loss_scaling: whether losses are scaled (fp16). Gradients that are not finite are then an overflow, which lowers
            the loss scale: the update is not recorded, and does not count as a skipped one.
        log: function that logs a message for every skipped update.

    Attributes:
        stop_requested: whether any process was requested to stop, at the last check.
    """

    def __init__(
        self,
        file: str | Path,
        sigma: float | None = None,
        loss_scaling: bool = False,
        log: Callable[[str], None] = logger.warning,
    ) -> None:
        self.file, self.sigma, self.loss_scaling, self.log = Path(file), sigma, loss_scaling, log
        self.consecutive_skips, self.stop_requested = 0, False
        self.windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._batches: list[tuple[str, list[str], dict[str, Tensor]]] = []

    def add_batch(self, batch: Mapping[str, Any], losses: dict[str, Tensor]) -> None:
        """Add the losses of a batch of the current update, without synchronising host and device."""
        means = {name: loss.detach().float().mean() for name, loss in losses.items()}
        self._batches.append((batch["dataset_name"], list(batch.get("sample_id", ())), means))

    def check(
        self, update: int, update_losses: Mapping[str, Tensor], squared_norm: Tensor, stop: bool = False
    ) -> float | None:
        """Return the norm of the gradients of the complete model, or None if the current update must be skipped.

        Must be called by all processes. There is one collective operation, and the host waits once for the device.

        Args:
            update: number of completed updates.
            update_losses: the losses of the update, see ``UpdateLosses.means``.
            squared_norm: ``Updater.squared_norm`` of this process.
            stop: whether this process was requested to stop.

        Raises:
            UserError: ``MAX_CONSECUTIVE_SKIPS`` updates in a row were skipped.
        """
        batches, self._batches = self._batches, []
        total, bad = squared_norm.new_zeros(()), squared_norm.new_zeros(())
        if update_losses:
            # NaN and infinity are replaced by 0 for the mean over processes, and reported by a flag
            total = torch.stack([*update_losses.values()]).sum().nan_to_num(0.0, 0.0, 0.0).to(total)
            bad = ~torch.stack([loss.isfinite().all() for _, _, losses in batches for loss in losses.values()]).all()
        values = torch.stack([bad.to(total), total, squared_norm, torch.full_like(total, stop)])
        bad_fraction, mean, square, stop_fraction = mean_over_ranks(values).cpu().tolist()
        self.stop_requested = stop_fraction > 0
        name, norm = batches[0][0], total_norm(square)
        reason = self._reason(name, bad_fraction > 0, mean, norm)
        if reason is None:
            if math.isfinite(norm):
                self.consecutive_skips = 0
                self.windows[name].append(mean)
            return norm
        self.consecutive_skips += 1
        self._write(update, reason, batches)
        text = "; ".join(_format_losses(losses) for _, _, losses in batches)
        text = f"{reason} (norm {norm:g}; losses: {text})" if reason == GRADIENT else f"loss {reason} ({text})"
        self.log(f"Skipped update {update + 1} on {name}: {text}. {self.file} lists the samples.")
        if self.consecutive_skips == MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                f"{MAX_CONSECUTIVE_SKIPS} updates in a row were skipped, the last one at update {update + 1}: {text}. "
                f"{self.file} lists the samples. Lower optimizer.params.lr, or set training.clip_gradients=true with "
                "training.max_grad_l2_norm, and resume from the last checkpoint."
            )
        return None

    def _reason(self, name: str, bad_loss: bool, mean: float, norm: float) -> str | None:
        """Return why the update must be skipped, or None."""
        if bad_loss:
            return NOT_FINITE
        if not math.isfinite(norm):
            return None if self.loss_scaling else GRADIENT
        return SPIKE if self._is_spike(name, mean) else None

    def _is_spike(self, name: str, mean: float) -> bool:
        window = self.windows[name]
        if self.sigma is None or len(window) < WINDOW:
            return False
        return mean > statistics.fmean(window) + self.sigma * max(statistics.pstdev(window), 1e-12)

    def _write(self, update: int, reason: str, batches: list[tuple[str, list[str], dict[str, Tensor]]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            for name, sample_ids, losses in batches:
                # JSON has no NaN and infinity: _to_json converts them to strings
                values = {key.rpartition("/")[2]: _to_json(loss) for key, loss in losses.items()}
                record = {"update": update + 1, "dataset": name, "reason": reason, "losses": values}
                file.write(json.dumps({**record, "sample_ids": sample_ids}) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable state for a checkpoint."""
        windows = {name: list(window) for name, window in self.windows.items()}
        return {"in_a_row": self.consecutive_skips, "windows": windows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.consecutive_skips = state["in_a_row"]
        self.windows.clear()
        for name, window in state["windows"].items():
            self.windows[name].extend(window)


def _to_json(loss: Tensor) -> float | str:
    value = loss.item()
    return value if math.isfinite(value) else str(value)


def _format_losses(losses: dict[str, Tensor]) -> str:
    where = " on this process" if world_size() > 1 else ""
    return ", ".join(f"{name.rpartition('/')[2]} {loss.item():g}" for name, loss in losses.items()) + where
