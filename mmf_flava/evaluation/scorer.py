"""Losses and MMF's metrics of a dataset, from one pass over its batches.

Losses are summed in file order, and metrics are computed once from the fields of all samples. Batches do not depend on
the number of processes, so the results are the same for any number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from mmf.common.report import Report
from mmf.modules.metrics import Metrics

from mmf_flava.data.evaluation_samples import EvaluationSamples
from mmf_flava.data.record import BadRecord
from mmf_flava.errors import UserError
from mmf_flava.evaluation.forward_pass import Part, to_cpu
from mmf_flava.evaluation.predictions import join_rows, read_rows
from mmf_flava.losses.counts import LossCounts, loss_name
from mmf_flava.processes import world_size

PREDICTIONS = "__prediction_report__"  # field of metrics that need the predictions of a split, on MMF's main branch


@dataclass
class BatchScores:
    """What a batch contributes to the scores of its dataset.

    Attributes:
        losses: loss name -> its mean, and the number of values that it is a mean over.
        fields: the fields that the metrics need.
        rows: predictions, if a metric needs them.
    """

    losses: dict[str, tuple[float, int]]
    fields: dict[str, Any]
    rows: list[dict[str, Any]]


class Scorer:
    """Computes losses and MMF's metrics.

    Args:
        metrics: the config key ``evaluation.metrics``: names, or mappings with ``type`` and ``params``.
        losses: the config key ``evaluation.losses``.

    Raises:
        UserError: a metric needs the predictions of a split, and the run has several processes.
    """

    def __init__(self, metrics: Any, losses: bool) -> None:
        self.losses = losses
        # MMF would read a name as a list of letters
        self.metrics = Metrics([metrics] if isinstance(metrics, str | Mapping) else metrics) if metrics else None
        if self._needs_rows and world_size() > 1:
            raise UserError(
                "evaluation.metrics: a metric of detections is computed by one process only. Start one process, or "
                "remove the metric."
            )

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to compute."""
        return self.losses or self.metrics is not None

    @property
    def _needs_rows(self) -> bool:
        return self.metrics is not None and PREDICTIONS in self.metrics.required_params

    def read(self, model: Any, dataset: Any, counts: LossCounts, batch: Any, output: Any) -> BatchScores:
        """Return what a batch contributes. A loss without values in the batch contributes nothing."""
        losses = {}
        if self.losses:
            for key, loss in output["losses"].items():
                if count := counts.of(key):
                    losses[loss_name(key)] = loss.mean().item(), count
        needed = self.metrics.required_params if self.metrics is not None else ()
        values = {**batch, **output}
        fields = {name: to_cpu(values[name]) for name in sorted(needed) if name in values}
        return BatchScores(losses, fields, read_rows(model, dataset, batch, output) if self._needs_rows else [])

    def compute_metrics(self, name: str, dataset: Any, parts: Sequence[Part[BatchScores]]) -> dict[str, float]:
        """Return the metrics of a dataset by name; empty if it has no samples that they apply to.

        Args:
            name: the dataset's name.

        Raises:
            UserError: a metric needs a field that neither the dataset nor the model has.
        """
        scores = [found for _, found in parts if found is not None]
        if self.metrics is None or not scores:
            return {}
        fields = {key: _join([found.fields[key] for found in scores]) for key in scores[0].fields}
        report = Report([*fields.items(), ("dataset_name", name), ("dataset_type", dataset.dataset_type)])
        if self._needs_rows:
            report["prediction_report"] = join_rows([(left_out, f.rows if f else []) for left_out, f in parts], dataset)
        for key, metric in self.metrics.metrics.items():
            if getattr(metric, "is_dataset_applicable", lambda name: True)(name):
                for field in metric.required_params:
                    if field != PREDICTIONS and field not in report:
                        raise UserError(
                            f"evaluation.metrics: {key} needs {field}, which neither dataset '{name}' nor the model "
                            "has. Remove the metric, or set another dataset or model."
                        )
                    if isinstance(report.get(field), torch.Tensor) and not len(report[field]):
                        return {}
        values = self.metrics(report, report)
        for key, value in values.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                raise UserError(f"evaluation.metrics: {key} is not one number. Return a scalar tensor.")
        return {key.split("/", 2)[2]: value.float().item() for key, value in values.items()}


def mean_losses(scores: Sequence[BatchScores]) -> dict[str, float]:
    """Return the mean of each loss over its values in all batches."""
    sums: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for found in scores:
        for name, (value, count) in found.losses.items():
            sums.setdefault(name, []).append(value * count)
            counts[name] = counts.get(name, 0) + count
    return {name: math.fsum(values) / counts[name] for name, values in sums.items()}


def uses_targets(model: Any) -> bool:
    """Return whether MMF computes the model's losses from scores and targets, by ``model_config.<model>.losses``."""
    return bool(getattr(getattr(model, "losses", None), "losses", None))


def has_labels(dataset: Any) -> bool:
    """Return whether the samples of a split have labels; the label -1 marks a sample without a label."""
    samples = EvaluationSamples(dataset)
    for n in range(len(samples)):
        sample = samples[n]
        if not isinstance(sample, BadRecord):
            if sample.get("targets") is None:
                return False
            targets = torch.as_tensor(sample["targets"])
            return targets.dim() > 0 or targets.is_floating_point() or int(targets) != -1
    return True  # all records are bad: they are listed by the evaluation


def _join(values: list[Any]) -> Any:
    """Join the values of a field in all batches, as MMF does: tensors along the first dimension, and lists."""
    if isinstance(values[0], torch.Tensor) and values[0].dim():
        return torch.cat(values)
    return list(chain.from_iterable(values)) if isinstance(values[0], list) else values[0]
