"""One update of the weights: forward and backward in the chosen precision, clipping, optimizer, schedule."""

from typing import Any

import torch
from torch import Tensor, nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import TrainingConfig
from mmf_flava.training.sharding import without_communication


class Updater:
    """Owns the optimizer and the schedule, both MMF's own by the recipe's ``optimizer`` and ``scheduler``.

    ``engine`` is what ``sharding.shard`` made of ``model``.
    """

    def __init__(
        self, model: nn.Module, engine: nn.Module, config: Any, training: TrainingConfig, device: torch.device
    ) -> None:
        self.model, self.engine, self.device = model, engine, device
        self.frequency = training.update_frequency
        self.autocast = training.precision == "bf16"
        self.max_norm = training.max_grad_l2_norm if config.training.clip_gradients else None
        self.optimizer = mmf_api.build_optimizer(model, config)
        self.scheduler = mmf_api.build_scheduler(self.optimizer, config) if config.training.lr_scheduler else None

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group, for the next update."""
        return self.optimizer.param_groups[0]["lr"]

    def accumulate(self, batch: Any, last: bool = True) -> dict[str, Tensor]:
        """Adds a batch's gradients, divided by the number of batches an update has, and returns its losses.

        Processes average their gradients after the ``last`` batch of an update only.
        """
        with without_communication(self.engine, not last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                losses = self.engine(batch)["losses"]
            if losses:
                (sum(loss.mean() for loss in losses.values()) / self.frequency).backward()
        return losses

    def step(self) -> None:
        """Clips, moves the weights and the schedule, and clears the gradients."""
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step()

    def scheduler_state(self) -> dict[str, Any] | None:
        """The schedule's state for a checkpoint; None without a schedule."""
        return None if self.scheduler is None else self.scheduler.state_dict()

    def restore_scheduler(self, state: dict[str, Any] | None) -> None:
        """Sets the schedule as a checkpoint had it; a checkpoint without one leaves it at its start."""
        if self.scheduler is not None and state is not None:
            self.scheduler.load_state_dict(state)
