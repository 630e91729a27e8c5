"""One training update: forward and backward pass, gradient clipping, optimizer, learning rate schedule."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import TrainingConfig
from mmf_flava.errors import UserError
from mmf_flava.processes import mean_over_ranks
from mmf_flava.training.buffers import BufferCopies
from mmf_flava.training.finite import FiniteCheck
from mmf_flava.training.gradients import clear_fixed_gradients, clip_each_gradient
from mmf_flava.training.hyperparameters import (
    add_missing_state,
    advance,
    merge_groups,
    read_hyperparameters,
    saved_groups,
    scheduled_names,
)
from mmf_flava.training.model_interface import check_losses, fixed_parameters, is_stock, plan_updates, start_update
from mmf_flava.training.moving_average import MovingAverage
from mmf_flava.training.precision import FullPrecision, Precision, total_norm
from mmf_flava.training.sharding import broadcast_weights, build_engine
from mmf_flava.training.update_losses import UpdateLosses
from mmf_flava.weights.weight_files import AVERAGES, read_safetensors


class Updater:
    """The model wrapped for training, with MMF's optimizer and learning rate scheduler.

    ``engine.module`` is the module to train, and ``engine.evaluated`` the module to evaluate.

    Args:
        model: model with its initial weights. With fp16, its weights are cast in place.
        config: the complete MMF config.
        training: the config section ``training``.
        updates_per_epoch: number of complete updates of an epoch, for the schedules of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Any,
        training: TrainingConfig,
        device: torch.device,
        updates_per_epoch: int = 1,
    ) -> None:
        self.device = device
        self.autocast = training.precision == "bf16" and training.sharding != "fsdp"  # FSDP does not need autocast
        self.max_norm = training.max_grad_l2_norm if config.training.clip_gradients else None
        self.clips_each = config.training.get("clip_norm_mode") == "parameter"
        broadcast_weights(model)
        if training.activation_checkpointing:
            model.checkpoint_activations()  # type: ignore[operator]
        groups = mmf_api.parameter_groups(model, config)
        self.finite_check = FiniteCheck(model, groups)
        # a batch of one modality does not use all encoders of FLAVA
        unused = not is_stock(type(model)) or bool(config.training.get("find_unused_parameters"))
        if training.precision == "fp16":
            from mmf_flava.training import fp16  # imports fairseq, which takes a second

            fp16.init_zero_parameters(model)
            fp16.use_fp32_layer_norms(model)
            masters = fp16.cast_to_fp16(model) if training.sharding != "fsdp" else {}
            self.engine = build_engine(model, groups, training, device, unused)
            self.masters = fp16.add_fp32_parameters(self.engine.weights, masters)
            self.engine.frozen.update(fp16.fp32_values(model, masters))
        else:
            self.engine = build_engine(model, groups, training, device, unused)
            self.masters = {weight: weight for weight in self.engine.weights}
        groups = [{**group, "params": [self.masters[p] for p in group["params"]]} for group in self.engine.groups]
        self.optimizer = mmf_api.build_optimizer(groups, config)
        self.optimizer.register_step_pre_hook(self._clip_each)  # in fp16, the gradients have been unscaled
        self.optimizer.register_step_post_hook(self._after_step)  # before fp16 weights are copied from their masters
        self._last_rate: float | None = None
        self._last_decay: float | None = None
        self.average = None
        if training.ema.enabled:
            weights = self.engine.by_name(self.masters)
            self.average = MovingAverage.of_run(weights, training.ema, config.training.max_updates)
        self.precision: Precision
        if training.precision == "fp16":
            self.precision = fp16.HalfPrecision(self.optimizer, self.masters)
        else:
            self.precision = FullPrecision(self.optimizer)
        self.initial, self.num_steps = read_hyperparameters(self.optimizer), 0
        self.scheduler = mmf_api.build_scheduler(self.optimizer, config) if config.training.lr_scheduler else None
        self.buffers, self._accumulating = BufferCopies(model), False
        plan_updates(model, config.training.max_updates, updates_per_epoch)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first parameter group in the last update; of the next update if there was none."""
        return self.optimizer.param_groups[0]["lr"] if self._last_rate is None else self._last_rate

    @property
    def weight_decay(self) -> float | None:
        """Weight decay in the last update, or in the next one if there was none; None if no schedule changes it."""
        return getattr(self.scheduler, "weight_decay", None) if self._last_decay is None else self._last_decay

    def _clip_each(self, *_: Any) -> None:
        if self.clips_each and self.max_norm is not None:
            clip_each_gradient([*self.masters.values()], self.max_norm, self.engine.num_shards > 1)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._last_rate = optimizer.param_groups[0]["lr"]
        self._last_decay = getattr(self.scheduler, "weight_decay", None)
        self.engine.after_step(self.masters)
        if self.average is not None:
            self.average.update(self.engine.by_name(self.masters), self.num_steps)

    def accumulate(self, batch: Any, last: bool = True, update: UpdateLosses | None = None) -> dict[str, Tensor]:
        """Accumulate the gradients of a batch and return its detached losses.

        Args:
            last: whether this is the last batch of the update. Only then gradients are averaged over processes.
            update: the losses of the update, to which the batch's losses are added; None for an update of one batch.
        """
        if not self._accumulating:
            start_update(self.engine.model, self.num_steps)
            self.buffers.save()
            self._accumulating = True
        with self.engine.skip_gradient_sync(not last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                losses = self._losses(batch)
            check_losses(self.engine.model, batch, losses)
            if losses:
                weighted = {key: loss.mean() for key, loss in losses.items()} if update is None else update.add(losses)
                total: Any = sum(weighted.values())
                self.precision.backward(total)
        if last:
            self.engine.after_backward()
            if fixed := fixed_parameters(self.engine.model):
                by_name = {self.engine.names[weight]: weight for weight in self.engine.weights}
                clear_fixed_gradients(self.engine.model, by_name, fixed)
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        try:
            return self.engine.module(batch)["losses"]
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise UserError(
                "training.find_unused_parameters: a batch did not use all parameters of the model. Set it to true, or "
                "freeze the parameters that no batch uses."
            ) from error

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
        if not self.precision.step(None if self.clips_each else self.max_norm, norm):
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

    def average_state(self) -> dict[str, Tensor]:
        """Return the model's state dict with the averages of ``training.ema``; empty if there are none.

        Must be called by all processes.
        """
        if self.average is None:
            return {}
        names, averages = self.engine.names, self.average.averages
        return self.engine.model_state({w: averages.get(names[w], master) for w, master in self.masters.items()})

    def load_average_state(self, path: Path) -> None:
        """Load the averages of a checkpoint. If it has none, the averages start from the weights."""
        if self.average is None:
            return
        if not (path / AVERAGES).is_file():
            mmf_api.log(f"training.ema: {path} has no averages of the weights, so they start from its weights.")
            return
        tensors = read_safetensors(path / AVERAGES)[0]
        for name, average in self.average.averages.items():
            average.copy_(self.engine.local_weight(name, tensors[name]))

    def averaged(self, enabled: bool) -> AbstractContextManager[None]:
        """Return a context manager in which the model has the averages as its weights, if ``enabled``."""
        return self.average.swapped_in(self.engine, self.masters) if enabled and self.average else nullcontext()

    def load_model_state(self, path: Path, averages: bool = False) -> None:
        """Load the weights of a checkpoint, or its averages, for evaluation. Must be called by all processes."""
        file = path / (AVERAGES if averages and (path / AVERAGES).is_file() else "model.safetensors")
        self.engine.load_weights(read_safetensors(file)[0], self.masters)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state dict for any precision and sharding. Must be called by all processes."""
        state = self.engine.full_optimizer_state(self.optimizer.state_dict())
        groups = saved_groups(state["param_groups"], self.initial, scheduled_names(self.scheduler))
        return {**state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of ``state_dict`` into the optimizer. Changed hyperparameters remain those of the recipe.

        Raises:
            UserError: the parameter groups differ.
        """
        current = {"state": {}, "param_groups": self.optimizer.state_dict()["param_groups"]}
        current = self.engine.full_optimizer_state(current)
        scheduled = scheduled_names(self.scheduler)
        groups = merge_groups(state["param_groups"], self.initial, current["param_groups"], scheduled)
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
        if self.num_steps > 0:
            start_update(self.engine.model, self.num_steps - 1)
        self.precision.load_state_dict(state.get("precision", {}))
