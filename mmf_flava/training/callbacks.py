"""User callbacks (``training.callbacks``), called with the events and arguments of MMF's main branch.

Events in order, with their arguments:

    on_init_start, on_init_end
    on_train_start
        on_update_start
            on_batch_start, on_batch_end(report, meter)     ``update_frequency`` times
        on_update_end(report, meter, should_log)            not called if the update was skipped
        on_validation_start, on_validation_end(report, meter)
    on_train_end
    on_test_start, on_test_end(report, meter)               or on_prediction_start, on_prediction_end
    teardown                                                also called if the run was stopped by a signal

Every process calls its own callbacks for every event. ``on_test_*`` or ``on_prediction_*`` are called for each split of
``run_type``.

A training report contains a batch and its ``losses`` under the names in the model's output, e.g.
``train/pmd/flava_itm``. As in ``metrics.jsonl``, losses are multiplied by their loss weights. The report of an update
contains the last batch, the losses of all batches as if they were one batch, and the total number of samples as
``batch_size``.
Evaluation metrics are named as in ``training.early_stop.criteria``: ``val/total_loss``, ``val/losses/flava_itm``,
``val/zero_shot/accuracy``; MMF's metrics as in MMF: ``val/hateful_memes/roc_auc``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmf.common.meter import Meter
from mmf.common.registry import registry
from mmf.common.report import Report
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.evaluation.split_result import SplitResult
from mmf_flava.training.monitor import TOTAL


class Callbacks(list[Any]):
    """List of the callbacks of a run. Validate ``training.callbacks`` with ``mmf_api.check_callbacks`` first.

    Attributes:
        meter: MMF meter that averages the training losses of the last 20 logged updates.
    """

    def __init__(self, config: Any, trainer: Any) -> None:
        super().__init__(mmf_api.build_callbacks(config, trainer))
        self.meter = Meter()
        self._batch: Any = None
        self._samples = 0

    def call(self, event: str, **arguments: Any) -> None:
        """Call the method ``event`` of each callback in the order of ``training.callbacks``."""
        for callback in self:
            getattr(callback, event)(**arguments)

    def start_update(self) -> None:
        """Reset the number of samples of the update and call ``on_update_start``."""
        self._samples = 0
        self.call("on_update_start")

    def end_batch(self, batch: Any, losses: dict[str, Tensor]) -> None:
        """Call ``on_batch_end`` of each callback after the backward pass of a batch.

        Args:
            batch: the batch on the model's device.
            losses: detached losses by name.
        """
        if not self:
            return
        report = Report(batch, {"losses": dict(losses)})
        self._batch = batch
        self._samples += report.batch_size
        self.call("on_batch_end", report=report, meter=self.meter)

    def end_update(self, losses: dict[str, Tensor], should_log: bool) -> None:
        """Call ``on_update_end`` of each callback after an update.

        All processes must call this method, because the meter averages the losses over processes.

        Args:
            losses: the losses of the update, see ``UpdateLosses.means``.
        """
        if not self:
            return
        report = Report(self._batch, {"losses": dict(losses)})
        report.batch_size = self._samples
        if should_log:
            self.meter.update_from_report(report)
        self.call("on_update_end", report=report, meter=self.meter, should_log=should_log)

    def end_evaluation(self, event: str, split: str, result: SplitResult, datasets: Mapping[str, Any]) -> None:
        """Call the callbacks' method ``event`` with an evaluation result.

        Args:
            event: e.g. ``on_validation_end``.
            datasets: the datasets of the split by name.
        """
        if self:
            report = _evaluation_report(split, result, datasets)
            self.call(event, report=report, meter=_evaluation_meter(report))


def _evaluation_report(split: str, result: SplitResult, datasets: Mapping[str, Any]) -> Report:
    """Return the losses and metrics of a split as an MMF report."""
    record = result.to_record()
    # metrics are named DATASET/NAME if the run has several datasets
    named_by_dataset = any(name.startswith(f"{dataset}/") for name in result.metrics for dataset in datasets)
    prefixes = {section: f"{section}/" for section in record if section != "samples"}
    if "metrics" in record:
        prefixes["metrics"] = "" if named_by_dataset else f"{next(iter(datasets))}/"
    named = {
        section: {
            f"{split}/{prefix}{name}": torch.tensor(value, dtype=torch.float64)
            for name, value in record[section].items()
        }
        for section, prefix in prefixes.items()
    }
    report = Report()
    report.losses = named.pop("losses")
    report.metrics = {name: value for values in named.values() for name, value in values.items()}
    report.dataset_name, report.dataset_type = ",".join(datasets), split
    report.batch_size = sum(len(dataset) for dataset in datasets.values())
    return report


def _evaluation_meter(report: Report) -> Meter:
    """Return an MMF meter with the values of one evaluation.

    ``Meter.update_from_report`` is not used, because it would reduce the values over the processes once more.
    """
    values = {**report.losses, **report.metrics}
    if report.losses:
        values[f"{report.dataset_type}/{TOTAL}"] = torch.stack([*report.losses.values()]).sum()
    meter = Meter()
    for name, value in values.items():
        meter.meters[name].update(value, report.batch_size)
    return meter


class TrainerAttributes:
    """Attributes of MMF's trainer that callbacks read, in addition to ``model``, ``device`` and ``num_updates``.

    Attributes:
        config: the complete MMF config.
        waiting: number of batches of the current update that are loaded, but whose forward pass has not begun.
    """

    waiting = 0
    config: Any
    data: Any
    updater: Any
    callbacks: Callbacks
    trains: bool
    num_updates: int

    @property
    def training_config(self) -> Any:
        """The config section ``training``."""
        return self.config.training

    @property
    def run_type(self) -> str:
        """``run_type`` of the config, e.g. ``train_val``."""
        return self.config.run_type

    @property
    def max_updates(self) -> int:
        """``training.max_updates`` of the config."""
        return self.config.training.max_updates

    @property
    def current_iteration(self) -> int:
        """Number of training batches so far, including batches of skipped updates and batches before a resume."""
        return self.data.loader.step - self.waiting if self.trains else 0

    @property
    def current_epoch(self) -> int:
        """Number of passes over the training data that have begun; 1 if the run does not train."""
        if not self.trains:
            return 1
        sizes = sum(len(dataset) for dataset in self.data.datasets["train"].values())
        return 1 + sum(self.data.loader.samples.values()) // sizes

    def register_counts(self) -> None:
        """Register the counts that models and losses of MMF may read."""
        for name in ("num_updates", "current_iteration", "current_epoch"):
            registry.register(name, getattr(self, name))

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer, or None if the run does not train."""
        return self.updater.optimizer if self.trains else None

    @property
    def lr(self) -> float | None:
        """Learning rate of the first parameter group in the last update, or None if the run does not train."""
        return self.updater.learning_rate if self.trains else None

    @property
    def meter(self) -> Meter:
        """Meter of the training losses; see ``Callbacks``."""
        return self.callbacks.meter
