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

Every process calls its own callbacks for every event, including evaluations that only the first process runs.

A training report contains a batch and its ``losses``, named as by the model (``train/pmd/flava_itm``). As in
``metrics.jsonl``, losses include their weights and are not divided by ``update_frequency``. The report of an update
contains the last batch, the mean losses over all batches, and the total number of samples as ``batch_size``. The
metrics of an evaluation have the names of ``training.early_stop.criteria``: ``val/total_loss``,
``val/losses/flava_itm``, ``val/zero_shot/accuracy``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmf.common.meter import Meter
from mmf.common.report import Report
from torch import Tensor

from mmf_flava.compat import mmf_api
from mmf_flava.evaluation.suite import SplitResult
from mmf_flava.processes import gather_objects
from mmf_flava.training.monitor import TOTAL


class Callbacks(list[Any]):
    """The callbacks of a run; ``mmf_api.check_callbacks`` must have validated them.

    Attributes:
        meter: MMF's meter of the training losses of the last 20 logged updates.
    """

    def __init__(self, config: Any, trainer: Any) -> None:
        super().__init__(mmf_api.build_callbacks(config, trainer))
        self.meter = Meter()
        self._batch: Any = None
        self._losses: list[dict[str, Tensor]] = []
        self._samples = 0

    def call(self, event: str, **arguments: Any) -> None:
        """Call the method ``event`` of each callback in the order of the recipe."""
        for callback in self:
            getattr(callback, event)(**arguments)

    def start_update(self) -> None:
        """Call ``on_update_start`` and discard the losses of a skipped update."""
        self._losses, self._samples = [], 0
        self.call("on_update_start")

    def end_batch(self, batch: Any, losses: dict[str, Tensor]) -> None:
        """Call ``on_batch_end`` after the backward pass.

        Args:
            batch: on the model's device.
            losses: detached.
        """
        if not self:
            return
        report = Report(batch, {"losses": dict(losses)})
        self._batch = batch
        self._losses.append(losses)
        self._samples += report.batch_size
        self.call("on_batch_end", report=report, meter=self.meter)

    def end_update(self, should_log: bool) -> None:
        """Call ``on_update_end``; all processes must call it, because the meter averages over them."""
        if not self:
            return
        means = {name: torch.stack([losses[name].mean() for losses in self._losses]).mean() for name in self._losses[0]}
        report = Report(self._batch, {"losses": means})
        report.batch_size = self._samples
        if should_log:
            self.meter.update_from_report(report)
        self.call("on_update_end", report=report, meter=self.meter, should_log=should_log)

    def end_evaluation(self, event: str, split: str, result: SplitResult | None, datasets: Mapping[str, Any]) -> None:
        """Call ``event`` with the first process's result; all processes must call it.

        Args:
            event: e.g. ``on_validation_end``.
            result: None if a signal interrupted the evaluation; the event is then not called.
            datasets: the evaluated datasets of the split by name.
        """
        if not self:
            return
        metrics = gather_objects(None if result is None else result.to_record())[0]
        if metrics is not None:
            report = _evaluation_report(split, metrics, datasets)
            self.call(event, report=report, meter=_evaluation_meter(report))


def _evaluation_report(split: str, metrics: dict[str, dict[str, float]], datasets: Mapping[str, Any]) -> Report:
    """Return the losses and metrics of a split as an MMF report."""
    named = {
        section: {
            f"{split}/{section}/{name}": torch.tensor(value, dtype=torch.float64) for name, value in values.items()
        }
        for section, values in metrics.items()
    }
    report = Report()
    report.losses = named.pop("losses")
    report.metrics = {name: value for values in named.values() for name, value in values.items()}
    report.dataset_name, report.dataset_type = ",".join(datasets), split
    report.batch_size = sum(len(dataset) for dataset in datasets.values())
    return report


def _evaluation_meter(report: Report) -> Meter:
    """Return an MMF meter of one evaluation.

    ``Meter.update_from_report`` would wait for the processes that did not evaluate.
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
        config: the complete recipe.
    """

    config: Any
    data: Any
    updater: Any
    callbacks: Callbacks
    trains: bool
    current_epoch = 1  # training data are an endless stream

    @property
    def training_config(self) -> Any:
        """The recipe's section ``training``."""
        return self.config.training

    @property
    def run_type(self) -> str:
        """The recipe's ``run_type``, e.g. ``train_val``."""
        return self.config.run_type

    @property
    def max_updates(self) -> int:
        """The recipe's ``training.max_updates``."""
        return self.config.training.max_updates

    @property
    def current_iteration(self) -> int:
        """Number of training batches so far, including skipped updates and those before a resume."""
        return self.data.loader.step if self.trains else 0

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer, or None if the run does not train."""
        return self.updater.optimizer if self.trains else None

    @property
    def lr(self) -> float | None:
        """Learning rate of the first parameter group at the next update, or None if the run does not train."""
        return self.updater.learning_rate if self.trains else None

    @property
    def meter(self) -> Meter:
        """Meter of the training losses; see ``Callbacks``."""
        return self.callbacks.meter
