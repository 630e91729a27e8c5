"""``training.trainer: flava``: MMF's trainer for multitask pretraining (§3.4).

``mmf_run`` calls ``load()``, then ``train()`` or ``inference()``.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.data.quarantine import BadRecords, Quarantine, counts
from mmf_flava.evaluation.suite import EvaluationSuite, SplitResult
from mmf_flava.ranks import gather_objects, rank, wait_for_all, world_size
from mmf_flava.training.callbacks import Callbacks, Observed
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.device import prepare_device
from mmf_flava.training.disk import told
from mmf_flava.training.final_evaluation import FinalEvaluation
from mmf_flava.training.guard import LossGuard
from mmf_flava.training.lock import RunLock
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.origin import load_weights
from mmf_flava.training.progress import Progress
from mmf_flava.training.results import Results
from mmf_flava.training.roll_call import RollCall
from mmf_flava.training.run_data import RunData
from mmf_flava.training.run_state import RunState
from mmf_flava.training.settings import read_settings
from mmf_flava.training.signals import STOPPED, Signals
from mmf_flava.training.update import Updater


@registry.register_trainer("flava")
class FlavaTrainer(Observed):
    """Trains on several datasets by turns, each update on one of them, and evaluates inside MMF."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.settings = read_settings(config)
        self.trains = "train" in config.run_type
        self.folder = Path(mmf_api.save_dir()).absolute()
        wishes = self.settings.checkpoint
        self.checkpoints = CheckpointFolder(self.folder, wishes.max_to_keep, wishes.background, mmf_api.log)
        self.results = Results(self.folder)
        self.signals = Signals()
        self.num_updates, self.seconds = 0, 0.0
        self.rank = rank()
        self.roll_call = RollCall(lambda: self.num_updates)

    # ------------------------------------------------------------------ load

    def load(self) -> None:
        """Builds datasets, model and optimizer, and goes on from a checkpoint where the recipe says so."""
        if self.trains and (missing := self.roll_call.start()):
            mmf_api.log(f"Ranks {missing} cannot reach rank 0's port: of their death only gloo or NCCL will tell.")
        with self.roll_call:
            self._load()

    def _load(self) -> None:
        if self.trains and self.rank == 0:
            self.lock = RunLock(self.folder, mmf_api.log)
        training = self.settings.training
        self.device = prepare_device(str(self.config.training.device), training)
        self.data = RunData(self.config, self.settings, self.trains)
        # every process begins with the weights of the first one; MMF may have seeded each by itself
        torch.set_rng_state(gather_objects(torch.get_rng_state())[0])
        self.model = mmf_api.build_model(self.config).to(self.device)
        self.data.check_embeddings(self.model.settings.text_encoder.vocab_size)  # type: ignore[union-attr,arg-type]
        if self.rank > 0:  # the weights are the first process's; dropout is each one's own
            torch.manual_seed((self.config.training.seed or 0) + self.rank)
        checkpoint = load_weights(self.model, self.config, self.checkpoints, self.settings.checkpoint)
        if self.trains:
            self.parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            self.updater = Updater(self.model, self.config, training, self.device)
            best, losses = self.config.training.early_stop, self.model.settings.losses  # type: ignore[union-attr]
            names = [loss.type for loss in losses]  # type: ignore[union-attr]
            self.monitor = Monitor(best.criteria, best.minimize, names, self.settings.evaluation)
            self.guard = LossGuard(self._own_file("skipped"), training.spike_sigma, mmf_api.log)
        self.suite = EvaluationSuite(
            self.settings.evaluation,
            self.data.datasets,
            self.config.training.batch_size,
            self.config.training.num_workers,
            self.device,
            shared=not self.trains,
            note=lambda batch: self.quarantine.note(batch),
        )
        self.final = FinalEvaluation(self.suite, self.results, self.settings.evaluation)
        self.callbacks = Callbacks(self.config, self)
        if self.trains:
            self.state = RunState(self.updater, self.data, self.monitor, self.guard, self.results)
            if checkpoint is not None:
                self.num_updates, self.seconds = self.state.resume(checkpoint, self.config.checkpoint.reset)
        self.callbacks.tell("on_init_start")
        self.callbacks.tell("on_init_end")

    def _own_file(self, stem: str) -> Path:
        """A file of JSON lines that this process alone writes."""
        return self.folder / (f"{stem}_{self.rank}.jsonl" if self.rank else f"{stem}.jsonl")

    # ------------------------------------------------------------------ train

    def train(self) -> None:
        """Trains to ``training.max_updates``, then evaluates on the test split and writes the report.

        Asked by a signal to stop, all processes save after the update at hand and exit with ``STOPPED``.
        """
        if not self.trains:
            self.inference()
            self.callbacks.tell("teardown")
            return
        with self.roll_call:
            self._run()
        self.roll_call.leave()

    def _run(self) -> None:
        training = self.config.training
        if self.rank == 0:
            if self.num_updates == 0:
                self.results.set_aside()
            self.results.write_config(self.config)
        wait_for_all()
        self._open_quarantine()
        mmf_api.log(
            f"Training {self.parameters:,} parameters on {', '.join(self.settings.datasets)}, updates "
            f"{self.num_updates} to {training.max_updates} of {training.batch_size} samples, "
            f"{self.settings.training.precision} on {self.device}"
        )
        progress = Progress(
            self.folder,
            self.config,
            self.settings.training.wandb,
            self.model,
            self.num_updates,
            self.seconds,
            self.rank > 0,
        )
        self.updater.engine.module.train()
        with (
            mmf_api.quiet_console(),
            told(self.folder),
            closing(progress),
            closing(self.data.loader) as loader,
            self.signals,
        ):
            self.callbacks.tell("on_train_start")
            self._train(iter(loader), progress)
        self.checkpoints.wait()
        self.callbacks.tell("on_train_end")
        self.seconds = progress.seconds
        bad = {key: reason for part in gather_objects(self.quarantine.found) for key, reason in part.items()}
        self.callbacks.tell("on_test_start")
        result = None
        if self.evaluates:
            with told(self.folder):
                result = self._final(bad)
        self.callbacks.end_evaluation("on_test_end", "test", result, self.suite.datasets["test"])
        wait_for_all()
        self.callbacks.tell("teardown")

    def _train(self, batches: Any, progress: Progress) -> None:
        while self.num_updates < self.config.training.max_updates:
            updated = self._update(batches, progress)
            stopping = self.signals.came_to_any(self.device)
            if updated:
                stopping = self._after_update(progress, stopping)
            elif stopping and self.num_updates:
                self._save()
            if stopping:
                self._stop()

    def _open_quarantine(self) -> None:
        limits = {name: dataset.max_bad_share for name, dataset in self.data.datasets["train"].items()}
        self.quarantine = Quarantine(self._own_file("quarantine"), limits, mmf_api.log)

    @property
    def evaluates(self) -> bool:
        """The first process does, and with shards the others must help it; they write nothing."""
        return self.rank == 0 or self.updater.engine.all_evaluate

    def _update(self, batches: Any, progress: Progress) -> bool:
        """One update; False where it was skipped (losses not finite, fp16's overflow) or a signal came before it."""
        frequency, done = self.settings.training.update_frequency, []
        for number in range(1, frequency + 1):
            began = time.perf_counter()
            # other processes would wait for this one's gradients, and dropout has drawn for the batches before
            alone = world_size() == 1 and number == 1
            found = self.signals.unless_stopped(lambda: next(batches)) if alone else next(batches)
            if found is None:
                return False
            waited, batch = time.perf_counter() - began, found[1]
            self.quarantine.note(batch)
            if number == 1:
                self.callbacks.start_update()
            losses = self._accumulate(batch.to(self.device), last=number == frequency)
            self.guard.note(batch, losses)
            done.append((losses, batch, waited))
        if self.guard.skips(self.num_updates):
            self.updater.discard()
            return False
        if not self.updater.step():
            return False
        for losses, batch, waited in done:
            progress.batch(losses, batch, waited)
        self.num_updates += 1
        progress.step()
        return True

    def _accumulate(self, batch: Any, last: bool) -> dict[str, Tensor]:
        self.callbacks.tell("on_batch_start")
        losses = self.updater.accumulate(batch, last)
        self.callbacks.end_batch(batch, losses)
        return losses

    def _after_update(self, progress: Progress, stopping: bool) -> bool:
        """Logs, evaluates and saves where it is time; returns whether the run is to stop."""
        training, update = self.config.training, self.num_updates
        last, improved = update == training.max_updates, False
        self.checkpoints.check()
        if should_log := update % training.log_interval == 0 or last:
            self.results.note_losses(progress.report(self.updater.learning_rate))
        self.callbacks.end_update(should_log)
        if (update % training.evaluation_interval == 0 or last) and not stopping:
            improved, stopping = self._evaluate(progress)
        if update % training.checkpoint_interval == 0 or last or improved or stopping:
            self.seconds = progress.seconds
            self._save(improved)
            progress.pause()
        return stopping

    def _evaluate(self, progress: Progress) -> tuple[bool, bool]:
        """Evaluates on ``val``: whether it was the best so far, and whether a signal ended it."""
        improved = stopping = False
        result = None
        self.callbacks.tell("on_validation_start")
        if self.evaluates:
            alone = not self.updater.engine.all_evaluate
            result = self.signals.unless_stopped(self._validate) if alone else self._validate()
            stopping = result is None
            if result is not None:
                progress.write("val", result.figures())
                mmf_api.log(f"evaluation at update {self.num_updates}: {result.sentence()}")
                improved = self.monitor.improved(result.figures())
        self.callbacks.end_evaluation("on_validation_end", "val", result, self.suite.datasets["val"])
        progress.pause()
        return gather_objects((improved, stopping))[0]

    def _validate(self) -> SplitResult:
        return self.suite.run(self.updater.engine.evaluated, "val")

    def _save(self, best: bool = False) -> None:
        self.state.save(self.checkpoints, self.num_updates, self.seconds, self.model.settings, best)

    def _stop(self) -> None:
        """Ends this process, as all the others at this moment, with the exit code that says "start me again"."""
        self.checkpoints.wait()
        where = f"after update {self.num_updates}; checkpoint.resume=true goes on there"
        if self.num_updates == 0:
            where = "before its first update"
        mmf_api.log(f"Stopped by {self.signals.name or 'a signal to another process'} {where}.")
        self.signals.ending()
        self.callbacks.tell("teardown")
        raise SystemExit(STOPPED)

    # ------------------------------------------------------------------ results

    def _final(self, bad: BadRecords) -> SplitResult:
        def summarise(seconds: float) -> None:
            self.results.write_summary(
                self.config,
                self.parameters,
                self.num_updates,
                self.seconds,
                self.device,
                self.settings.training.precision,
                self.settings.training.update_frequency,
                bad_records=counts({**bad, **self.quarantine.found}),
                evaluation_seconds=round(seconds, 1),
            )

        return self.final.of_trained(self.updater.engine.evaluated, self.num_updates, summarise)

    def inference(self) -> None:
        """Evaluates the loaded model on the test split (``val`` in ``run_type``: on that one); predicts if asked.

        All processes share the work; the first one writes.
        """
        self._open_quarantine()
        split = "val" if "val" in self.config.run_type and "test" not in self.config.run_type else "test"
        predicts = self.config.evaluation.predict
        self.callbacks.tell("on_prediction_start" if predicts else "on_test_start")
        result = self.final.of_loaded(self.model, split, self.num_updates, predicts)
        if predicts:
            self.callbacks.tell("on_prediction_end")
        else:
            self.callbacks.end_evaluation("on_test_end", split, result, self.suite.datasets[split])
