"""A user's own callbacks (``training.callbacks``), told as the trainer of MMF's main branch tells them.

Events in their order, with what a callback gets beside its trainer:

    on_init_start, on_init_end
    on_train_start
        on_update_start
            on_batch_start, on_batch_end(report, meter)     ``update_frequency`` times
        on_update_end(report, meter, should_log)            not where the update was skipped
        on_validation_start, on_validation_end(report, meter)
    on_train_end
    on_test_start, on_test_end(report, meter)               or on_prediction_start, on_prediction_end
    teardown                                                of a run that was stopped by a signal too

Every process tells its own callbacks of every event, also where the first one alone evaluates.

A training report holds a batch with its ``losses``, as the model names them (``train/pmd/flava_itm``) and as
``metrics.jsonl`` has them: with their weights, not divided by ``update_frequency``. That of an update is its last batch
with the means over all its batches, and their samples' number as ``batch_size``. The figures of an evaluation bear the
names that ``training.early_stop.criteria`` has for them: ``val/total_loss``, ``val/losses/flava_itm``,
``val/zero_shot/accuracy``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmf.common.meter import Meter
from mmf.common.report import Report
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.evaluation.suite import SplitResult
from mmf_flava.ranks import gather_objects
from mmf_flava.training.monitor import TOTAL


class Callbacks(list[Any]):
    """All callbacks of a run, which ``mmf_api.check_callbacks`` has found right; without any, telling costs nothing.

    Attributes:
        meter: MMF's, of the training losses of the last 20 updates that were logged.
    """

    def __init__(self, config: Any, trainer: Any) -> None:
        super().__init__(mmf_api.user_callbacks(config, trainer))
        self.meter = Meter()
        self._batch: Any = None
        self._losses: list[dict[str, Tensor]] = []
        self._samples = 0

    def tell(self, event: str, **what: Any) -> None:
        """Calls the method ``event`` of each callback, in the recipe's order."""
        for callback in self:
            getattr(callback, event)(**what)

    def start_update(self) -> None:
        """Tells of an update's start; what was noted of one that was skipped is forgotten."""
        self._losses, self._samples = [], 0
        self.tell("on_update_start")

    def end_batch(self, batch: Any, losses: dict[str, Tensor]) -> None:
        """Tells of a batch, on the model's device, whose gradients are there; ``losses`` have no graph."""
        if not self:
            return
        report = Report(batch, {"losses": dict(losses)})
        self._batch = batch
        self._losses.append(losses)
        self._samples += report.batch_size
        self.tell("on_batch_end", report=report, meter=self.meter)

    def end_update(self, should_log: bool) -> None:
        """Tells of an update that was done; every process must call it, for the meter takes the mean over them."""
        if not self:
            return
        means = {name: torch.stack([losses[name].mean() for losses in self._losses]).mean() for name in self._losses[0]}
        report = Report(self._batch, {"losses": means})
        report.batch_size = self._samples
        if should_log:
            self.meter.update_from_report(report)
        self.tell("on_update_end", report=report, meter=self.meter, should_log=should_log)

    def end_evaluation(self, event: str, split: str, result: SplitResult | None, datasets: Mapping[str, Any]) -> None:
        """Tells of the first process's result on these datasets of a split; every process must call it.

        None: a signal came before the evaluation's end, of which nobody is told.
        """
        if not self:
            return
        figures = gather_objects(None if result is None else result.figures())[0]
        if figures is not None:
            report = _evaluated(split, figures, datasets)
            self.tell(event, report=report, meter=_meter(report))


def _evaluated(split: str, found: dict[str, dict[str, float]], datasets: Mapping[str, Any]) -> Report:
    """An evaluation's losses and other figures, as MMF's report of a whole split."""
    figures = {
        section: {
            f"{split}/{section}/{name}": torch.tensor(value, dtype=torch.float64) for name, value in values.items()
        }
        for section, values in found.items()
    }
    report = Report()
    report.losses = figures.pop("losses")
    report.metrics = {name: value for values in figures.values() for name, value in values.items()}
    report.dataset_name, report.dataset_type = ",".join(datasets), split
    report.batch_size = sum(len(dataset) for dataset in datasets.values())
    return report


def _meter(report: Report) -> Meter:
    """MMF's meter of one evaluation; its own way would take a mean over processes that may not all have evaluated."""
    figures = {**report.losses, **report.metrics}
    if report.losses:
        figures[f"{report.dataset_type}/{TOTAL}"] = torch.stack([*report.losses.values()]).sum()
    meter = Meter()
    for name, value in figures.items():
        meter.meters[name].update(value, report.batch_size)
    return meter


class Observed:
    """What callbacks read from their trainer, beside its ``model``, ``device``, ``callbacks`` and ``num_updates``.

    Attributes:
        config: the whole recipe.
    """

    config: Any
    data: Any
    updater: Any
    callbacks: Callbacks
    trains: bool
    current_epoch = 1  # the batches have no end

    @property
    def training_config(self) -> Any:
        """The recipe's section ``training``."""
        return self.config.training

    @property
    def run_type(self) -> str:
        """The recipe's: what this run does, e.g. ``train_val``."""
        return self.config.run_type

    @property
    def max_updates(self) -> int:
        """The update with which training ends."""
        return self.config.training.max_updates

    @property
    def current_iteration(self) -> int:
        """Training batches so far, of skipped updates too, also before a run was resumed."""
        return self.data.loader.step if self.trains else 0

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """None where nothing is trained."""
        return self.updater.optimizer if self.trains else None

    @property
    def lr(self) -> float | None:
        """The learning rate of the next update's first parameter group; None where nothing is trained."""
        return self.updater.learning_rate if self.trains else None

    @property
    def meter(self) -> Meter:
        """Of the training losses; see ``Callbacks``."""
        return self.callbacks.meter
