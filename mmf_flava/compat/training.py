"""Defects of MMF's own training loops, of either line, that would hurt any model."""

from __future__ import annotations

import gc
import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import inf
from types import ModuleType, SimpleNamespace
from typing import Any

from mmf_flava.compat.cure import cure, shadow, source_has
from mmf_flava.errors import UserError

logger = logging.getLogger("mmf.train")


@cure(
    "mmf.datasets.multi_dataset_loader",
    when="after",
    what="each pass over several datasets starts afresh",
    why="MultiDatasetLoader keeps its finished iterators: the second epoch yields nothing and training spins for ever",
    since="MMF 1.0.0rc1",
    until="MultiDatasetLoader.__iter__ clears its state",
    needed=lambda module: "_finished_iterators" not in inspect.getsource(module.MultiDatasetLoader.__iter__),
)
def fresh_iterators(module: ModuleType) -> None:
    iterate = module.MultiDatasetLoader.__iter__

    def __iter__(self: Any) -> Any:
        self._iterators, self._finished_iterators, self._used_once = [], {}, {}
        return iterate(self)

    module.MultiDatasetLoader.__iter__ = __iter__


@cure(
    "mmf.trainers.base_trainer",
    when="after",
    what="anomaly detection is off unless the user turns it on",
    why="train() calls torch.autograd.set_detect_anomaly(True): a debugging aid that slows every backward pass",
    since="MMF 1.0.0rc1",
    until="MMF makes it an option",
    needed=source_has("set_detect_anomaly(True)", "BaseTrainer.train"),
)
def no_anomaly_detection(module: ModuleType) -> None:
    import torch

    # only this file's view of torch changes: a user's own torch.autograd.detect_anomaly() still works
    autograd = shadow(torch.autograd, set_detect_anomaly=lambda mode, check_nan=True: None)
    vars(module)["torch"] = shadow(torch, autograd=autograd)


@cure(
    "mmf.utils.early_stopping",
    when="after",
    what="a resumed run knows at which update it was best",
    why="only the best value is restored: patience is counted from update 0, and a resumed run stops at once",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.init_from_checkpoint reads best_update",
    needed=lambda module: "best_update" not in inspect.getsource(module.EarlyStopping.init_from_checkpoint),
)
def patience(module: ModuleType) -> None:
    init = module.EarlyStopping.init_from_checkpoint

    def init_from_checkpoint(self: Any, load: Any) -> None:
        init(self, load)
        self.best_monitored_update = load.get("best_update", self.best_monitored_update)

    module.EarlyStopping.init_from_checkpoint = init_from_checkpoint


@cure(
    "mmf.utils.checkpoint",
    when="after",
    what="checkpoint.max_to_keep counts a checkpoint once that is saved twice at one update",
    why="where evaluation_interval and checkpoint_interval meet, MMF removes the file that it has just written",
    since="MMF's main branch of 2020",
    until="Checkpoint.save looks for the update in saved_iterations",
    needed=source_has("self.saved_iterations.append", "Checkpoint.save"),
)
def kept_once(module: ModuleType) -> None:
    save = module.Checkpoint.save

    def save_once(self: Any, update: int, *args: Any, **kwargs: Any) -> None:
        if update in self.saved_iterations:
            self.saved_iterations.remove(update)
        save(self, update, *args, **kwargs)

    module.Checkpoint.save = save_once


@cure(
    "mmf.utils.early_stopping",
    when="after",
    what="early stopping leaves it to the trainer to bring the best weights back",
    why="the first process alone waits for all others amid the evaluation; the trainer restores them anyway",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.__call__ does not call restore",
    needed=source_has("self.checkpoint.restore()", "EarlyStopping.__call__"),
)
def no_early_restore(module: ModuleType) -> None:
    call = module.EarlyStopping.__call__

    def __call__(self: Any, update: int, iteration: int, meter: Any) -> bool:
        checkpoint = self.checkpoint
        self.checkpoint = SimpleNamespace(save=checkpoint.save, restore=lambda: None, finalize=lambda: None)
        try:
            return call(self, update, iteration, meter)
        finally:
            self.checkpoint = checkpoint

    module.EarlyStopping.__call__ = __call__


@cure(
    "mmf.trainers.core.training_loop",
    when="after",
    what="an update's losses are divided by the number of batches it is made of, and it is made of update_frequency",
    why="MMF counts down from a length that an endless strategy (round_robin, random, ratios) goes beyond, and ends "
    "the last update of a pass at its first batch: what comes then is divided by 0, later by -1, -2, ...",
    since="MMF's main branch of 2021",
    until="run_training_epoch counts down for strategies alone that exhaust their datasets",
    needed=source_has("num_remaining_batches", "TrainerTrainingLoopMixin.run_training_epoch"),
)
def whole_updates(module: ModuleType) -> None:
    def run_training_epoch(self: Any) -> None:
        while self.num_updates < self.max_updates:
            self.current_epoch += 1
            module.registry.register("current_epoch", self.current_epoch)
            self.dataset_loader.seed_sampler("train", self.current_epoch)
            for batches, number in _updates(self.train_loader, self.training_config.update_frequency):
                _update(self, batches, number)
                if _should_stop(self) or self.num_updates >= self.max_updates:
                    return

    module.TrainerTrainingLoopMixin.run_training_epoch = run_training_epoch


def _updates(loader: Any, frequency: int) -> Iterator[tuple[Iterable[Any], int]]:
    """The batches of each update of a pass, and how many they are; the last one may have fewer than ``frequency``."""
    left = _length(loader)
    batches = (batch for batch in loader)  # whose own iter() begins anew whenever it is asked
    for first in batches:
        if left:  # they are drawn one by one, so that workers load the next while this one is computed
            number = int(min(frequency, left))
            yield chain([first], islice(batches, number - 1)), number
            left -= number
        else:
            group = [first, *islice(batches, frequency - 1)]
            yield group, len(group)


def _length(loader: Any) -> float:
    """Batches of a pass; infinity where it has no end, 0 where the pass alone can say when it ends."""
    from torch.utils.data import IterableDataset

    if not loader.iteration_strategy.should_exhaust_all_iterators:
        return inf
    return 0 if any(isinstance(dataset, IterableDataset) for dataset in loader.get_datasets()) else len(loader)


def _update(trainer: Any, batches: Iterable[Any], number: int) -> None:
    """One step of the optimizer. The trainer's hooks are called as MMF calls them."""
    trainer._start_update()
    whole: Any = None
    for batch in batches:
        trainer.current_iteration += 1
        trainer.on_batch_start()
        trainer.profile("Batch load time")
        report = trainer.run_training_batch(batch, number).detach()
        if whole is None:
            whole = report
        else:
            whole.accumulate_tensor_fields_and_loss(report, trainer.metrics.required_params)
            whole.batch_size += report.batch_size
        trainer.on_batch_end(report=whole, meter=trainer.meter)
    trainer._finish_update()
    due = trainer.num_updates % trainer.logistics_callback.log_interval == 0
    if due:
        if trainer.training_config.evaluate_metrics:
            whole.metrics = trainer.metrics(whole, whole)
        trainer.meter.update_from_report(whole)
    trainer.on_update_end(report=whole, meter=trainer.meter, should_log=due)


def _should_stop(trainer: Any) -> bool:
    """Evaluates when it is time; True where early stopping has had enough."""
    if trainer.num_updates % trainer.training_config.evaluation_interval:
        return False
    trainer.on_validation_start()
    logger.info("Evaluating on the validation data")
    report, meter = trainer.evaluation_loop("val")
    stop = trainer.early_stop_callback.on_validation_end(report=report, meter=meter)
    trainer.on_validation_end(report=report, meter=meter)
    gc.collect()
    if "cuda" in str(trainer.device):
        import torch

        torch.cuda.empty_cache()
    if stop:
        logger.info("Early stopping activated")
    return bool(stop)


@cure(
    "mmf.common.report",
    when="after",
    what="a loss that only a later batch of an update has is counted once",
    why="with update_frequency over several datasets MMF enters such a loss and then adds it to itself, in the later "
    "report too, and warns of it at every update",
    since="MMF's main branch of 2021",
    until="Report._accumulate_loss takes a new loss as it is",
    needed=source_has("self.losses[key] += value", "Report._accumulate_loss"),
)
def new_losses(module: ModuleType) -> None:
    def _accumulate_loss(self: Any, report: Any) -> None:
        for name, loss in report.losses.items():
            self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    module.Report._accumulate_loss = _accumulate_loss


@cure(
    "mmf.trainers.core.training_loop",
    when="after",
    what="silence about torch.cuda.amp in MMF's trainer",
    why="a newcomer can do nothing about these warnings, two at every start",
    since="torch 2.4",
    until="MMF takes autocast and GradScaler from torch.amp",
    needed=source_has("torch.cuda.amp", "TrainerTrainingLoopMixin._forward"),
)
def former_amp(_: ModuleType) -> None:
    outdated = r"`torch\.cuda\.amp\.(autocast|GradScaler)"
    warnings.filterwarnings("ignore", message=outdated, category=FutureWarning, module=r"mmf\.trainers")


@cure(
    "mmf.trainers.mmf_trainer",
    when="after",
    what="training.fp16 without CUDA is refused in a sentence",
    why="MMF ends with the traceback of an assertion",
    since="MMF's main branch of 2021",
    until="MMF tells users' mistakes from its own",
    needed=source_has("fp16 cannot be used on cpu", "MMFTrainer.load_fp16_scaler"),
)
def fp16_without_cuda(module: ModuleType) -> None:
    load = module.MMFTrainer.load_fp16_scaler

    def load_fp16_scaler(self: Any) -> None:
        if self.training_config.fp16 and self.device == module.torch.device("cpu"):
            raise UserError("training.fp16 needs CUDA, and this run is on the CPU: leave training.fp16 out.")
        load(self)

    module.MMFTrainer.load_fp16_scaler = load_fp16_scaler
