"""The metrics of GLUE that MMF lacks, registered with it beside its own ``accuracy`` and ``f1``.

Each is a figure of a whole split: a correlation is not the mean of the batches' correlations. MMF's own evaluation
concatenates ``required_params`` over a split before it calls a metric; whoever calls one on a batch gets that batch's.

Shapes: N samples of the split · C classes.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mmf.common.registry import registry
from mmf.modules.metrics import BaseMetric
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor

from mmf_flava.errors import UserError


@registry.register_metric("matthews")
class Matthews(BaseMetric):
    """Matthews correlation of the predicted and the true classes, in [-1, 1]: CoLA's figure."""

    def __init__(self) -> None:
        super().__init__("matthews")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> float:
        """``scores`` (N, C) and ``targets`` (N,); 0 with a warning where all of either are of one class."""
        predicted, true = _classes(self.name, sample_list, model_output)
        return _correlation(self.name, predicted, true, matthews_corrcoef)


@registry.register_metric("pearson")
class Pearson(BaseMetric):
    """Pearson's correlation of predicted and true values, in [-1, 1]: STS-B's figure."""

    def __init__(self) -> None:
        super().__init__("pearson")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> float:
        """``scores`` (N, 1) or (N,) and ``targets`` (N,); 0 with a warning where all of either are equal."""
        predicted, true = _values(self.name, sample_list, model_output)
        return _correlation(self.name, predicted, true, lambda a, b: pearsonr(a, b).statistic)


@registry.register_metric("spearman")
class Spearman(BaseMetric):
    """Spearman's rank correlation of predicted and true values, in [-1, 1]; ties share their mean rank."""

    def __init__(self) -> None:
        super().__init__("spearman")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> float:
        """``scores`` (N, 1) or (N,) and ``targets`` (N,); 0 with a warning where all of either are equal."""
        predicted, true = _values(self.name, sample_list, model_output)
        return _correlation(self.name, predicted, true, lambda a, b: spearmanr(a, b).statistic)


@registry.register_metric("accuracy_f1")
class AccuracyF1(BaseMetric):
    """The mean of accuracy and of class 1's F1, in [0, 1]: what the paper gives for MRPC and QQP."""

    def __init__(self) -> None:
        super().__init__("accuracy_f1")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> float:
        """``scores`` (N, 2) and ``targets`` (N,); F1 is 0 where class 1 is neither predicted nor true."""
        predicted, true = _classes(self.name, sample_list, model_output)
        return float((predicted == true).mean() + f1_score(true, predicted, zero_division=0.0)) / 2


def _classes(name: str, sample_list: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes, (N,) each."""
    scores, targets = output["scores"], sample_list["targets"]
    if scores.dim() != 2 or scores.shape[1] < 2 or targets.dim() != 1:
        raise UserError(
            f"Metric {name} needs scores of two or more classes and one target a sample, not scores "
            f"{tuple(scores.shape)} and targets {tuple(targets.shape)}; for regression there are pearson and spearman."
        )
    _check_finite(name, scores)
    return scores.argmax(dim=1).cpu().numpy(), targets.cpu().numpy()


def _values(name: str, sample_list: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true values, (N,) each, in float64."""
    scores, targets = output["scores"], sample_list["targets"]
    if scores.numel() != targets.numel():
        raise UserError(
            f"Metric {name} needs one score and one target a sample, not scores {tuple(scores.shape)} and targets "
            f"{tuple(targets.shape)}; for classes there are accuracy, f1 and matthews."
        )
    _check_finite(name, scores)
    return scores.double().flatten().cpu().numpy(), targets.double().flatten().cpu().numpy()


def _check_finite(name: str, scores: Tensor) -> None:
    if bad := int((~scores.isfinite()).sum()):
        raise UserError(
            f"Metric {name}: {bad} of {scores.numel()} scores are NaN or infinite, so the model has diverged; train "
            "it with a lower learning rate."
        )


def _correlation(
    name: str, predicted: np.ndarray, true: np.ndarray, formula: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    for what, values in (("predictions", predicted), ("targets", true)):
        if len(values) < 2 or (values == values[0]).all():
            warnings.warn(
                f"{name} is not defined, as all {len(values)} {what} are equal; it counts as 0.", stacklevel=3
            )
            return 0.0
    return float(formula(predicted, true))
