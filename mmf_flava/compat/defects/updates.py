"""Patches of ``update_frequency`` (gradient accumulation) in the training loop of MMF's main branch."""

import gc
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import inf
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


@patch(
    "mmf.trainers.core.training_loop",
    what="the losses of an update are divided by the number of batches in the update (update_frequency)",
    why="MMF divides by the number of remaining batches of the epoch, although strategies without epochs (round_robin, "
    "random, ratios) continue after it: later losses are divided by 0, then by -1, -2, ...",
    since="MMF's main branch of 2021",
    until="run_training_epoch counts down only for strategies that exhaust their datasets",
    needed=source_contains("num_remaining_batches", "TrainerTrainingLoopMixin.run_training_epoch"),
)
def whole_updates(module: Any) -> None:
    @wrap(module.TrainerTrainingLoopMixin, "run_training_epoch")
    def run_training_epoch(original: Any, self: Any) -> None:
        frequency = self.training_config.update_frequency
        if frequency == 1 and self.train_loader.iteration_strategy.should_exhaust_all_iterators:
            original(self)  # MMF's count is correct
            return
        while self.num_updates < self.max_updates:
            self.current_epoch += 1
            module.registry.register("current_epoch", self.current_epoch)
            self.dataset_loader.seed_sampler("train", self.current_epoch)
            for batches, count in _group_by_update(self.train_loader, frequency):
                _run_update(self, batches, count)
                if _should_stop(self, module.logger) or self.num_updates >= self.max_updates:
                    return


def _group_by_update(loader: Any, frequency: int) -> Iterator[tuple[Iterable[Any], int]]:
    """For each update of an epoch, yield its batches and their number. The last update may have fewer batches."""
    remaining = _epoch_length(loader)
    batches = (batch for batch in loader)  # calling iter(loader) again would restart the epoch
    for first in batches:
        if remaining:  # lazily, so that data loader workers load the next batch during the current one's computation
            count = int(min(frequency, remaining))
            yield chain([first], islice(batches, count - 1)), count
            remaining -= count
        else:
            group = [first, *islice(batches, frequency - 1)]
            yield group, len(group)


def _epoch_length(loader: Any) -> float:
    """Return the number of batches of an epoch: infinity if the epoch does not end, 0 if unknown."""
    from torch.utils.data import IterableDataset

    if not loader.iteration_strategy.should_exhaust_all_iterators:
        return inf
    return 0 if any(isinstance(dataset, IterableDataset) for dataset in loader.get_datasets()) else len(loader)


def _run_update(trainer: Any, batches: Iterable[Any], count: int) -> None:
    """Run one update, and call the trainer's hooks as MMF's training loop does."""
    trainer._start_update()
    combined: Any = None
    for batch in batches:
        trainer.current_iteration += 1
        trainer.on_batch_start()
        trainer.profile("Batch load time")
        report = trainer.run_training_batch(batch, count).detach()
        if combined is None:
            combined = report
        else:
            combined.accumulate_tensor_fields_and_loss(report, trainer.metrics.required_params)
            combined.batch_size += report.batch_size
        trainer.on_batch_end(report=combined, meter=trainer.meter)
    trainer._finish_update()
    should_log = trainer.num_updates % trainer.logistics_callback.log_interval == 0
    if should_log:
        if trainer.training_config.evaluate_metrics:
            combined.metrics = trainer.metrics(combined, combined)
        trainer.meter.update_from_report(combined)
    trainer.on_update_end(report=combined, meter=trainer.meter, should_log=should_log)


def _should_stop(trainer: Any, logger: Any) -> bool:
    """Evaluate every ``evaluation_interval`` updates, and return whether early stopping ends the training."""
    if trainer.num_updates % trainer.training_config.evaluation_interval:
        return False
    trainer.on_validation_start()
    logger.info("Evaluation time. Running on full validation set...")
    report, meter = trainer.evaluation_loop("val")
    stop = trainer.early_stop_callback.on_validation_end(report=report, meter=meter)
    trainer.on_validation_end(report=report, meter=meter)
    gc.collect()
    if "cuda" in str(trainer.device):
        import torch

        torch.cuda.empty_cache()
    if stop is not True:  # user callbacks may return other values than bool
        return False
    logger.info("Early stopping activated")
    return True


@patch(
    "mmf.common.report",
    what="a loss that first occurs in a later batch of an update is counted once",
    why="if the batches of an update come from several datasets, MMF inserts the new loss and then adds it to itself, "
    "which also changes the later batch's report, and warns at every update",
    since="MMF's main branch of 2021",
    until="Report._accumulate_loss inserts a new loss unchanged",
    needed=source_contains("self.losses[key] += value", "Report._accumulate_loss"),
)
def new_losses(module: Any) -> None:
    from torch import Tensor

    def _accumulate_loss(self: Any, report: Any) -> None:
        for name, loss in report.losses.items():
            if name not in self.losses:
                self.losses[name] = loss
            elif isinstance(self.losses[name], Tensor):
                self.losses[name] = self.losses[name] + loss

    module.Report._accumulate_loss = _accumulate_loss
