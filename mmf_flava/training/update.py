"""One training update: forward and backward pass, gradient clipping, optimizer, learning rate schedule."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import TrainingConfig
from mmf_flava.processes import mean_over_ranks
from mmf_flava.training.buffers import BufferCopies
from mmf_flava.training.finite import FiniteCheck
from mmf_flava.training.hyperparameters import INITIAL, add_missing_state, advance, merge_groups, read_hyperparameters
from mmf_flava.training.precision import FullPrecision, Precision, total_norm
from mmf_flava.training.sharding import broadcast_weights, build_engine
from mmf_flava.training.update_losses import UpdateLosses
from mmf_flava.weights.weight_files import read_safetensors


class Updater:
    """The model wrapped for training, with MMF's optimizer and learning rate scheduler.

    ``engine.module`` is the module to train, and ``engine.evaluated`` the module to evaluate.

    Args:
        model: model with its initial weights. With fp16, its weights are cast in place.
        config: the complete MMF config.
        training: the config section ``training``.
    """

    def __init__(self, model: nn.Module, config: Any, training: TrainingConfig, device: torch.device) -> None:
        self.device = device
        self.autocast = training.precision == "bf16" and training.sharding != "fsdp"  # FSDP does not need autocast
        self.max_norm = training.max_grad_l2_norm if config.training.clip_gradients else None
        broadcast_weights(model)
        if training.activation_checkpointing:
            model.checkpoint_activations()  # type: ignore[operator]
        groups = model.get_optimizer_parameters(config)  # type: ignore[operator]
        self.finite_check = FiniteCheck(model, groups)
        if training.precision == "fp16":
            from mmf_flava.training import fp16  # imports fairseq, which takes a second

            fp16.init_zero_parameters(model)
            fp16.use_fp32_layer_norms(model)
            masters = fp16.cast_to_fp16(model) if training.sharding != "fsdp" else {}
            self.engine = build_engine(model, groups, training, device)
            self.masters = fp16.add_fp32_parameters(self.engine.weights, masters)
        else:
            self.engine = build_engine(model, groups, training, device)
            self.masters = {weight: weight for weight in self.engine.weights}
        groups = [{**group, "params": [self.masters[p] for p in group["params"]]} for group in self.engine.groups]
        self.optimizer = mmf_api.build_optimizer(groups, config)
        self.optimizer.register_step_post_hook(self._after_step)  # before fp16 weights are copied from their masters
        self._last_rate: float | None = None
        self.precision: Precision
        if training.precision == "fp16":
            self.precision = fp16.HalfPrecision(self.optimizer, self.masters)
        else:
            self.precision = FullPrecision(self.optimizer)
        self.initial, self.num_steps = read_hyperparameters(self.optimizer), 0
        self.scheduler = mmf_api.build_scheduler(self.optimizer, config) if config.training.lr_scheduler else None
        self.buffers, self._accumulating = BufferCopies(model), False

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first parameter group in the last update; of the next update if there was none."""
        return self.optimizer.param_groups[0]["lr"] if self._last_rate is None else self._last_rate

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._last_rate = optimizer.param_groups[0]["lr"]
        self.engine.after_step(self.masters)

    def accumulate(self, batch: Any, last: bool = True, update: UpdateLosses | None = None) -> dict[str, Tensor]:
        """Accumulate the gradients of a batch and return its detached losses.

        Args:
            last: whether this is the last batch of the update. Only then gradients are averaged over processes.
            update: the losses of the update, to which the batch's losses are added; None for an update of one batch.
        """
        if not self._accumulating:
            self.buffers.save()
            self._accumulating = True
        with self.engine.skip_gradient_sync(not last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                losses = self.engine.module(batch)["losses"]
            if losses:
                weighted = {key: loss.mean() for key, loss in losses.items()} if update is None else update.add(losses)
                total: Any = sum(weighted.values())
                self.precision.backward(total)
        if last:
            self.engine.after_backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def squared_norm(self) -> Tensor:
        """Return the squared norm of this process's gradients, in fp64.

        Its mean over processes is that of the complete model. In fp16, gradients are multiplied by the loss scale.
        """
        return self.precision.norm().to(self.device, torch.float64).square() * self.engine.num_shards

    def step(self, norm: float | None = None) -> bool:
        """Clip gradients, step the optimizer and the schedule, and clear the gradients.

        Args:
            norm: result of ``UpdateGuard.check``. By default, the norm is computed; all processes must then take part.

        Returns:
            False if fp16 gradients overflowed. In this case only the loss scale changes.
        """
        if norm is None:
            norm = total_norm(mean_over_ranks(self.squared_norm()).item())
        self._accumulating = False
        if not self.precision.step(self.max_norm, norm):
            self.buffers.restore()
            return False
        self.engine.finish_step()
        self.num_steps += 1
        if self.scheduler is not None:
            self.scheduler.step()
        return True

    def discard(self) -> None:
        """Clear the gradients of a skipped update and restore the buffers that its forward passes changed."""
        self._accumulating = False
        self.precision.zero_grad()
        self.buffers.restore()

    def model_state(self) -> dict[str, Tensor]:
        """Return the model's state dict in fp32 for any precision. Must be called by all processes."""
        return self.engine.model_state(self.masters)

    def load_model_state(self, path: Path) -> None:
        """Load the weights of a checkpoint, for evaluation. Must be called by all processes."""
        self.engine.load_weights(read_safetensors(path / "model.safetensors")[0], self.masters)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state dict for any precision and sharding. Must be called by all processes."""
        state = self.engine.full_optimizer_state(self.optimizer.state_dict())
        groups = [
            {**group, INITIAL: initial} for group, initial in zip(state["param_groups"], self.initial, strict=True)
        ]
        return {**state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of ``state_dict`` into the optimizer. Changed hyperparameters remain those of the recipe.

        Raises:
            UserError: the parameter groups differ.
        """
        current = {"state": {}, "param_groups": self.optimizer.state_dict()["param_groups"]}
        current = self.engine.full_optimizer_state(current)
        groups = merge_groups(state["param_groups"], self.initial, current["param_groups"])
        self.optimizer.load_state_dict(self.engine.local_optimizer_state({**state, "param_groups": groups}))
        add_missing_state(self.optimizer)

    def schedule_state(self) -> dict[str, Any]:
        """Return the number of steps of the learning rate schedule and the state of the loss scaler.

        The latter is empty unless the precision is fp16.
        """
        return {"scheduler": {"last_epoch": self.num_steps}, "precision": self.precision.state_dict()}

    def load_schedule_state(self, state: dict[str, Any]) -> None:
        """Load the result of ``schedule_state``: continue the schedule of the present recipe at this number of steps.

        Call it after ``load_state_dict``, which resets the learning rate.
        """
        self.num_steps = int((state["scheduler"] or {}).get("last_epoch", 0))
        if self.scheduler is not None:
            advance(self.scheduler, self.num_steps)
        self.precision.load_state_dict(state.get("precision", {}))
