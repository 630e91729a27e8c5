"""``training.trainer: flava``: the trainer for multitask pretraining (FLAVA paper, §3.4) and finetuning.

It trains any model that is registered with MMF on any map-style datasets, see ``model_interface`` and
``data.map_stream``. MMF calls ``load()``, then ``train()`` or ``inference()``.
"""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.compat.command_line import is_prediction
from mmf_flava.compat.process_recipes import meet_before_training
from mmf_flava.config.schedule import set_updates_of_epochs
from mmf_flava.data.quarantine import Quarantine, count_by_reason
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.files.checkpoint_names import BEST, parse_name, read_pointer
from mmf_flava.processes import gather_objects, rank, wait_for_all, world_size
from mmf_flava.training.callbacks import Callbacks, TrainerAttributes
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.closed_output import handle_closed_output
from mmf_flava.training.device import log_unused_gpus, prepare_device
from mmf_flava.training.disk import explain_disk_errors
from mmf_flava.training.final_evaluation import FinalEvaluation
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.identity import RunIdentity, use_seed_of_checkpoint
from mmf_flava.training.initial_weights import load_initial_weights
from mmf_flava.training.lock import RunLock, refuse_folder_of_mmf
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.peer_watchdog import REPEAT, RESUME, PeerWatchdog
from mmf_flava.training.progress import Progress
from mmf_flava.training.results import Results
from mmf_flava.training.run_data import RunData
from mmf_flava.training.run_state import RunState, evaluated_update
from mmf_flava.training.settings import read_settings
from mmf_flava.training.signals import STOPPED, StopSignals
from mmf_flava.training.update import Updater
from mmf_flava.training.update_losses import UpdateLosses
from mmf_flava.training.validation import Validation


@registry.register_trainer("flava")
class FlavaTrainer(TrainerAttributes):
    """Trainer for one or more datasets. All batches of an update are from the same dataset.

    Training ends after ``training.max_updates`` updates or, if ``training.early_stop`` is enabled, after a validation.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.settings = read_settings(config)
        self.trains = "train" in config.run_type and not is_prediction()
        self.folder = Path(mmf_api.save_dir()).absolute()
        section = self.settings.checkpoint
        self.checkpoints = CheckpointFolder(self.folder, section.max_to_keep, section.background, mmf_api.log)
        self.results = Results(self.folder)
        self.signals = StopSignals()
        self.num_updates, self.seconds, self.stopped_early = 0, 0.0, False
        self.rank = rank()
        self.peer_watchdog = PeerWatchdog(lambda: self.num_updates, RESUME if self.trains else REPEAT)

    def load(self) -> None:
        """Build datasets, model and optimizer, and resume from a checkpoint if ``checkpoint.resume`` is set."""
        meet_before_training()
        if missing := self.peer_watchdog.start():
            mmf_api.log(
                f"Warning: ranks {missing} cannot connect to rank 0. If one of them dies, only gloo or NCCL detects it."
            )
        with self.peer_watchdog, handle_closed_output(self.signals.output_closed):
            self._load()

    def _load(self) -> None:
        if self.rank == 0 and (self.trains or self.config.checkpoint.resume):
            refuse_folder_of_mmf(self.folder)
        if self.trains and self.rank == 0:
            self.lock = RunLock(self.folder, mmf_api.log)
        training = self.settings.training
        self.device = prepare_device(str(self.config.training.device), training)
        if self.trains:
            log_unused_gpus(str(self.config.training.device), self.device)
            use_seed_of_checkpoint(self.config, self.checkpoints)
            # the run folders of other processes may have no checkpoints
            self.config.training.seed = gather_objects(self.config.training.seed)[0]
        self.data = RunData(self.config, self.settings, self.trains)
        for message in set_updates_of_epochs(self.config, self.data.datasets) if self.trains else ():
            mmf_api.log(message)
        # MMF may seed the processes differently, but all processes must initialise the same weights
        torch.set_rng_state(gather_objects(torch.get_rng_state())[0])
        self.model = mmf_api.build_model(self.config).to(self.device)
        if self.rank > 0:  # processes use different random numbers for training, e.g. for dropout
            torch.manual_seed((self.config.training.seed or 0) + self.rank)
        compare = None
        if self.trains:
            self.identity = RunIdentity.of_run(self.config, self.data, self.model)
            compare = partial(self.identity.compare, reset=self.settings.checkpoint.reset)
        section = self.settings.checkpoint
        checkpoint = load_initial_weights(
            self.model,
            self.config,
            self.checkpoints,
            section,
            compare,
            averages=self.settings.evaluation.ema and not self.trains,
        )
        if self.trains:
            self.num_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            self.updater = Updater(self.model, self.config, training, self.device)
            self.monitor = Monitor.of_run(self.config)
            scaled = training.precision == "fp16"
            self.guard = UpdateGuard(self._process_file("skipped"), training.spike_sigma, scaled, mmf_api.log)
        self.suite = EvaluationSuite(
            self.settings.evaluation,
            self.data.datasets,
            self.config.training.num_workers,
            self.device,
            metrics=self.config.evaluation.get("metrics"),
            trains=self.trains,
            collective=self.trains and self.updater.engine.all_ranks_evaluate,
            on_batch=lambda batch: self.quarantine.update(batch),
        )
        self.callbacks = Callbacks(self.config, self)
        self.final_evaluation = FinalEvaluation(self.suite, self.results, self.config, self.callbacks)
        self.final_evaluation.check(self.model)
        if self.trains:
            engine = self.updater.engine
            self.validation = Validation(self.suite, engine, self.monitor, self.signals, self.callbacks)
            self.state = RunState(self.updater, self.data, self.monitor, self.guard, self.results, self.identity)
            if checkpoint is not None:
                self.num_updates, self.seconds = self.state.resume(checkpoint, section.reset)
                validated = self.monitor.validated == self.num_updates
                self.stopped_early = validated and self.monitor.patience_ended(self.num_updates)
        else:
            self.num_updates = evaluated_update(checkpoint, self.config.checkpoint.resume_file)
        self.callbacks.call("on_init_start")
        self.callbacks.call("on_init_end")

    def _process_file(self, stem: str) -> Path:
        """Return the path of a JSON Lines file that only this process writes."""
        return self.folder / (f"{stem}_{self.rank}.jsonl" if self.rank else f"{stem}.jsonl")

    def train(self) -> None:
        """Train to ``training.max_updates``, then evaluate on the test split and write the report.

        If any process receives a stop signal, all processes save a checkpoint after the current update and exit with
        code ``STOPPED``.
        """
        if not self.trains:
            self.inference()
            self.callbacks.call("teardown")
            return
        with (
            self.peer_watchdog,
            explain_disk_errors(self.folder, self.checkpoints.ways_to_free_space),
            handle_closed_output(self.signals.output_closed),
        ):
            self._run()
        self.peer_watchdog.stop()

    def _run(self) -> None:
        training = self.config.training
        if self.rank == 0:
            self.checkpoints.make_room(self.num_updates + 1)
            if self.num_updates == 0:
                self.results.move_previous_run()
            self.results.write_config(self.config)
        wait_for_all()
        self._open_quarantine()
        mmf_api.log(
            "checkpoint.resume: the checkpoint has all training.max_updates updates. Nothing is trained."
            if self.num_updates >= training.max_updates
            else f"Training {self.num_parameters:,} parameters on {', '.join(self.settings.datasets)}, updates "
            f"{self.num_updates} to {training.max_updates}, batches of {training.batch_size} samples, "
            f"{self.settings.training.precision} on {self.device}"
        )
        wandb, silent = self.settings.training.wandb, self.rank > 0
        progress = Progress(self.folder, self.config, wandb, self.model, self.num_updates, self.seconds, silent)
        self.updater.engine.module.train()
        with (
            mmf_api.redirect_logging_to_tqdm(),
            closing(progress),
            closing(self.data.loader) as loader,
            self.signals,
        ):
            self.callbacks.call("on_train_start")
            self._train(iter(loader), progress)
        self.checkpoints.wait()
        self.callbacks.call("on_train_end")
        self.seconds = progress.seconds
        self.updater.engine.broadcast_buffers()
        evaluated, update = self.updater.engine.evaluated, self._load_evaluated_weights()
        with self.updater.averaged(self.settings.evaluation.ema and update == self.num_updates):
            self.final_evaluation.evaluate_trained(evaluated, update, self._write_summary)
        wait_for_all()
        self.callbacks.call("teardown")

    def _train(self, batches: Any, progress: Progress) -> None:
        if self._is_due(self.config.training.evaluation_interval) and self.monitor.validated < self.num_updates:
            self._validate_and_save(progress)  # a signal came before the validation of the checkpoint's update
        while self.num_updates < self.config.training.max_updates and not self.stopped_early:
            losses = self._update(batches, progress)
            stopping = self.signals.received_by_any(self.device)
            if losses is not None:
                self._log(progress, losses)
                self._validate_and_save(progress, stopping)
            elif stopping:
                if self.num_updates:
                    self._save()
                self._stop()

    def _open_quarantine(self) -> None:
        limits = {name: dataset.max_bad_share for name, dataset in self.data.datasets["train"].items()}
        self.quarantine = Quarantine(self._process_file("quarantine"), limits, mmf_api.log)

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
        norm = self.guard.check(self.num_updates, losses.means, self.updater.squared_norm())
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
            self.results.record_losses(progress.report(self.updater.learning_rate))
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

    def _load_evaluated_weights(self) -> int:
        """Load the weights that ``evaluation.weights`` selects for the final evaluation, and return their update."""
        best, update = (
            self.monitor.value is not None and self.settings.evaluation.weights == "best",
            self.monitor.update,
        )
        if not best or update == self.num_updates:
            return self.num_updates
        path = gather_objects(read_pointer(self.checkpoints.folder / BEST) if self.rank == 0 else None)[0]
        if path is None or parse_name(path)[0] != update:  # it was removed, or is the best by another criteria
            mmf_api.log(
                f"Warning: the best checkpoint by {self.monitor.criteria} is missing. Evaluating the last weights."
            )
            return self.num_updates
        mmf_api.log(f"Evaluating the best checkpoint by {self.monitor.criteria}, {path}")
        self.updater.load_model_state(path, self.settings.evaluation.ema)
        return update

    def _write_summary(self, evaluation_seconds: float) -> None:
        """Write ``summary.json``. Must be called by all processes."""
        gathered = gather_objects(self.quarantine.bad_records)
        if self.rank > 0:
            return
        self.results.write_summary(
            self.config,
            self.num_parameters,
            self.num_updates,
            self.seconds,
            self.device,
            self.settings.training.precision,
            self.settings.training.update_frequency,
            bad_records=count_by_reason({key: reason for bad in gathered for key, reason in bad.items()}),
            evaluation_seconds=round(evaluation_seconds, 1),
        )

    def inference(self) -> None:
        """Evaluate the loaded model on the splits of ``run_type``, or predict if ``evaluation.predict`` is set.

        The samples are partitioned across all processes. The first process writes the results.
        """
        with self.peer_watchdog, handle_closed_output(self.signals.output_closed):
            self._open_quarantine()
            self.final_evaluation.evaluate_loaded(self.model, self.num_updates)
        self.peer_watchdog.stop()
