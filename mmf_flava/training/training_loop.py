"""The training loop of the trainer ``flava``: updates, logging, validation, saves and stops."""

from typing import Any

import torch
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.data.quarantine import Quarantine
from mmf_flava.processes import world_size
from mmf_flava.training.callbacks import TrainerAttributes
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.progress import Progress
from mmf_flava.training.results import Results
from mmf_flava.training.run_data import RunData
from mmf_flava.training.run_state import RunState
from mmf_flava.training.settings import Settings
from mmf_flava.training.signals import STOPPED, StopSignals
from mmf_flava.training.update import Updater
from mmf_flava.training.update_losses import UpdateLosses
from mmf_flava.training.validation import Validation


class TrainingLoop(TrainerAttributes):
    """Base class of ``FlavaTrainer``, which sets the attributes."""

    settings: Settings
    device: torch.device
    model: Any
    data: RunData
    updater: Updater
    guard: UpdateGuard
    monitor: Monitor
    validation: Validation
    state: RunState
    checkpoints: CheckpointFolder
    results: Results
    signals: StopSignals
    quarantine: Quarantine
    seconds: float
    stopped_early: bool

    def _train(self, batches: Any, progress: Progress) -> None:
        if self._is_due(self.config.training.evaluation_interval) and self.monitor.validated < self.num_updates:
            self._validate_and_save(progress)  # a signal came before the validation of the checkpoint's update
        while self.num_updates < self.config.training.max_updates and not self.stopped_early:
            losses = self._update(batches, progress)
            stopping = self._stop_requested()
            if losses is not None:
                self._log(progress, losses)
                self._validate_and_save(progress, stopping)
            elif stopping:
                if self.num_updates:
                    self._save()
                self._stop()

    def _update(self, batches: Any, progress: Progress) -> dict[str, Tensor] | None:
        """Run one update and return its losses.

        The result is None if the update was skipped (``UpdateGuard``, fp16 overflow) or a signal came before it.
        """
        loaded = self.data.load_batches(batches, self.signals, self.quarantine)
        if not loaded:
            return None
        self.waiting = len(loaded)
        self.callbacks.start_update()
        losses = UpdateLosses(self.model, [item.batch for item in loaded], self.device)
        for item in loaded:
            self.waiting -= 1
            self.register_counts()
            self.guard.add_batch(item.batch, self._accumulate(item.prepare(self.device), losses))
        stop = self.signals.name is not None
        norm = self.guard.check(self.num_updates, losses.means, self.updater.squared_norm(), stop)
        if norm is None:
            self.updater.discard()
            return None
        if not self.updater.step(norm):
            return None
        for item in loaded:
            progress.add_batch(item.batch, item.waited)
        self.num_updates += 1
        progress.add_update(losses)
        return losses.means

    def _stop_requested(self) -> bool:
        """Return whether any process received a signal; of several processes, before the check of the last update."""
        return self.signals.name is not None if world_size() == 1 else self.guard.stop_requested

    def _accumulate(self, batch: Any, update: UpdateLosses) -> dict[str, Tensor]:
        self.callbacks.call("on_batch_start")
        losses = self.updater.accumulate(batch, last=self.waiting == 0, update=update)
        self.callbacks.end_batch(batch, losses)
        return losses

    def _is_due(self, interval: int) -> bool:
        """Return whether the current update is the last one or a multiple of ``interval``."""
        return self.num_updates % interval == 0 or self.num_updates == self.config.training.max_updates

    def _log(self, progress: Progress, losses: dict[str, Tensor]) -> None:
        self.checkpoints.check()
        if should_log := self._is_due(self.config.training.log_interval):
            self.results.record_losses(progress.report(self.updater.learning_rate, self.updater.weight_decay))
        self.callbacks.end_update(losses, should_log)

    def _validate_and_save(self, progress: Progress, stopping: bool = False) -> None:
        """Validate and save at the configured intervals. If the run must stop, save and exit."""
        training, improved = self.config.training, False
        if self._is_due(training.evaluation_interval) and not stopping:
            try:
                with self.updater.averaged(self.settings.evaluation.ema):
                    improved, stopping = self.validation.run(self.num_updates, progress)
            except Exception:
                if world_size() == 1:  # other processes may not reach a collective
                    self._save()
                raise
            self.stopped_early = not stopping and self.monitor.patience_ended(self.num_updates)
        if self._is_due(training.checkpoint_interval) or improved or stopping or self.stopped_early:
            self.seconds = progress.seconds
            self._save(improved)
            progress.reset()
        if stopping:
            self._stop()
        if self.stopped_early:
            mmf_api.log(
                f"training.early_stop: training ends after update {self.num_updates}; the best update was "
                f"{self.monitor.update}."
            )

    def _save(self, best: bool = False) -> None:
        self.state.save(self.checkpoints, self.num_updates, self.seconds, best)

    def _stop(self) -> None:
        """Wait for the last save and exit with code ``STOPPED``. Called by all processes after the same update."""
        self.checkpoints.wait()
        when = f"after update {self.num_updates}. Resume with checkpoint.resume=true"
        if self.num_updates == 0:
            when = "before the first update"
        mmf_api.log(f"Stopped by {self.signals.name or 'a signal to another process'} {when}.")
        self.signals.ignore_while_exiting()
        self.callbacks.call("teardown")
        raise SystemExit(STOPPED)
