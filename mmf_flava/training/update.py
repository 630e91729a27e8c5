"""One update of the weights: forward and backward in the chosen precision, clipping, optimizer, schedule."""

from typing import Any

import torch
from torch import Tensor, nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import TrainingConfig
from mmf_flava.models.transformer import Transformer
from mmf_flava.training.precision import FullPrecision, Precision
from mmf_flava.training.sharding import agree_on_weights, shard


class Updater:
    """Owns the optimizer and the schedule, both MMF's own by the recipe's ``optimizer`` and ``scheduler``.

    ``model`` is spread over the processes and, in fp16, cast: its weights must be there. ``engine.module`` is what to
    call from then on, ``engine.evaluated`` what to evaluate.
    """

    def __init__(self, model: nn.Module, config: Any, training: TrainingConfig, device: torch.device) -> None:
        self.device, self.frequency = device, training.update_frequency
        self.autocast = training.precision == "bf16" and training.sharding != "fsdp"  # FSDP casts by itself
        self.max_norm = training.max_grad_l2_norm if config.training.clip_gradients else None
        agree_on_weights(model)
        if training.activation_checkpointing:
            for module in model.modules():
                if isinstance(module, Transformer):
                    module.checkpoint_blocks()
        groups = model.get_optimizer_parameters(config)  # type: ignore[operator]
        if training.precision == "fp16":
            from mmf_flava.training import fp16  # brings fairseq, which takes a second

            fp16.wake(model)
            fp16.normalise_in_fp32(model)
            halved = fp16.halve(model) if training.sharding != "fsdp" else {}
            self.engine = shard(model, groups, training, device)
            self.masters = fp16.masters(self.engine.weights, halved)
        else:
            self.engine = shard(model, groups, training, device)
            self.masters = {weight: weight for weight in self.engine.weights}
        groups = [{**group, "params": [self.masters[p] for p in group["params"]]} for group in self.engine.groups]
        self.optimizer = mmf_api.build_optimizer(groups, config)
        self.precision: Precision
        if training.precision == "fp16":
            self.precision = fp16.HalfPrecision(self.optimizer, self.masters, self.engine.total_norm)
        else:
            self.precision = FullPrecision(self.optimizer, self.engine.total_norm)
        self.scheduler = mmf_api.build_scheduler(self.optimizer, config) if config.training.lr_scheduler else None

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group, for the next update."""
        return self.optimizer.param_groups[0]["lr"]

    def accumulate(self, batch: Any, last: bool = True) -> dict[str, Tensor]:
        """Adds a batch's gradients, divided by the number of batches an update has, and returns its losses.

        Processes average their gradients after the ``last`` batch of an update only.
        """
        with self.engine.without_communication(not last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                losses = self.engine.module(batch)["losses"]
            if losses:
                self.precision.backward(sum(loss.mean() for loss in losses.values()) / self.frequency)
        return {name: loss.detach() for name, loss in losses.items()}

    def step(self) -> bool:
        """Clips, moves the weights and the schedule, and clears the gradients.

        False: fp16's gradients overflowed, and only the loss scale has changed.
        """
        if not self.precision.step(self.max_norm):
            return False
        self.engine.after_step()
        if self.scheduler is not None:
            self.scheduler.step()
        return True

    def discard(self) -> None:
        """Clears the gradients of an update that is not to be."""
        self.precision.discard()

    def model_state(self) -> dict[str, Tensor]:
        """The model's state dict, in fp32 whatever the precision; every process must call it."""
        return self.engine.model_state(self.masters)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the same whatever the precision and sharding; every process must call it."""
        return self.engine.whole_optimizer_state(self.optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with such a state."""
        self.optimizer.load_state_dict(self.engine.own_optimizer_state(state))

    def schedule_state(self) -> dict[str, Any]:
        """What else a checkpoint must keep: the schedule, None without one, and fp16's loss scale."""
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        return {"scheduler": scheduler, "precision": self.precision.state_dict()}

    def restore_schedule(self, state: dict[str, Any]) -> None:
        """Sets both as a checkpoint had them; what it does not have stays at its start."""
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state.get("precision", {}))
