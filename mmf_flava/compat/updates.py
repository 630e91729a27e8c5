"""An update of several batches in the training loop of MMF's main branch, and the losses of it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import inf
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, source_has

logger = logging.getLogger("mmf.train")


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
