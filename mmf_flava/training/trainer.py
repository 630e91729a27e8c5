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

from mmf_flava.compat import mmf_api
from mmf_flava.compat.command_line import is_prediction
from mmf_flava.compat.process_recipes import meet_before_training
from mmf_flava.config.schedule import set_updates_of_epochs, updates_per_epoch
from mmf_flava.data.quarantine import Quarantine, count_by_reason
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.processes import gather_objects, rank, wait_for_all
from mmf_flava.training.callbacks import Callbacks
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.closed_output import handle_closed_output
from mmf_flava.training.data_summary import write_data_summary
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
from mmf_flava.training.signals import StopSignals
from mmf_flava.training.training_loop import TrainingLoop
from mmf_flava.training.update import Updater
from mmf_flava.training.validation import Validation


@registry.register_trainer("flava")
class FlavaTrainer(TrainingLoop):
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
        self._prepare_run()
        checkpoint = self._build_model()
        if self.trains:
            self._build_training()
        self._build_evaluation()
        if not self.trains:
            self.num_updates = evaluated_update(checkpoint, self.config.checkpoint.resume_file)
        elif checkpoint is not None:
            self.num_updates, self.seconds = self.state.resume(checkpoint, self.settings.checkpoint.reset)
            validated = self.monitor.validated == self.num_updates
            self.stopped_early = validated and self.monitor.patience_ended(self.num_updates)
        self.callbacks.call("on_init_start")
        self.callbacks.call("on_init_end")

    def _prepare_run(self) -> None:
        """Lock the run folder, prepare the device, and build the datasets."""
        if self.rank == 0 and (self.trains or self.config.checkpoint.resume):
            refuse_folder_of_mmf(self.folder)
        if self.trains and self.rank == 0:
            self.lock = RunLock(self.folder, mmf_api.log)
        self.device = prepare_device(str(self.config.training.device), self.settings.training)
        if self.trains:
            log_unused_gpus(str(self.config.training.device), self.device)
            use_seed_of_checkpoint(self.config, self.checkpoints)
            # the run folders of other processes may have no checkpoints
            self.config.training.seed = gather_objects(self.config.training.seed)[0]
        self.data = RunData(self.config, self.settings, self.trains)
        for message in set_updates_of_epochs(self.config, self.data.datasets) if self.trains else ():
            mmf_api.log(message)

    def _build_model(self) -> Path | None:
        """Build the model with its initial weights, and return the checkpoint that they are from, if any."""
        # MMF may seed the processes differently, but all processes must initialise the same weights
        torch.set_rng_state(gather_objects(torch.get_rng_state())[0])
        self.model = mmf_api.build_model(self.config).to(self.device)
        if self.rank > 0:  # processes use different random numbers for training, e.g. for dropout
            torch.manual_seed((self.config.training.seed or 0) + self.rank)
        compare = None
        if self.trains:
            self.identity = RunIdentity.of_run(self.config, self.data, self.model)
            compare = partial(self.identity.compare, reset=self.settings.checkpoint.reset)
        averages = self.settings.evaluation.ema and not self.trains
        section = self.settings.checkpoint
        return load_initial_weights(self.model, self.config, self.checkpoints, section, compare, averages)

    def _build_training(self) -> None:
        training = self.settings.training
        self.num_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        per_epoch = updates_per_epoch(self.config, map(len, self.data.datasets["train"].values()))
        self.updater = Updater(self.model, self.config, training, self.device, per_epoch)
        self.monitor = Monitor.of_run(self.config)
        scaled = training.precision == "fp16"
        self.guard = UpdateGuard(self._process_file("skipped"), training.spike_sigma, scaled, mmf_api.log)
        self.state = RunState(self.updater, self.data, self.monitor, self.guard, self.results, self.identity)

    def _build_evaluation(self) -> None:
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
            write_data_summary(self.folder, self.data.datasets, self.config)
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
        evaluation = self.settings.evaluation
        update = self.state.load_evaluated(self.checkpoints, self.num_updates, evaluation)
        with self.updater.averaged(evaluation.ema and update == self.num_updates):
            self.final_evaluation.evaluate_trained(self.updater.engine.evaluated, update, self._write_summary)
        wait_for_all()
        self.callbacks.call("teardown")

    def _open_quarantine(self) -> None:
        limits = {name: dataset.max_bad_share for name, dataset in self.data.datasets["train"].items()}
        self.quarantine = Quarantine(self._process_file("quarantine"), limits, mmf_api.log)

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
