"""GLUE metrics that MMF does not have, and ROC AUC in double precision, added to MMF's metric registry.

The metrics are computed on a complete split: a correlation is not the mean of per-batch correlations. MMF concatenates
``required_params`` over a split before it calls a metric. SciPy and scikit-learn are imported when they are used:
at the start of every run, this would take two seconds.

Shapes: N = number of samples in the split, C = number of classes.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry
from mmf.modules.metrics import BaseMetric
from torch import Tensor
from torch.nn.functional import one_hot

from mmf_flava.errors import UserError


@registry.register_metric("matthews")
class Matthews(BaseMetric):
    """Matthews correlation of predicted and true classes, in [-1, 1]; the metric of CoLA."""

    def __init__(self) -> None:
        super().__init__("matthews")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute the correlation from ``scores`` (N, C) and ``targets`` (N,).

        Return 0 with a warning if all predictions or all targets are the same class.
        """
        from sklearn.metrics import matthews_corrcoef

        predicted, true = _extract_classes(self.name, sample_list, model_output)
        return _on_device(_compute_correlation(self.name, predicted, true, matthews_corrcoef), model_output)


@registry.register_metric("pearson")
class Pearson(BaseMetric):
    """Pearson correlation of predicted and true values, in [-1, 1]; the metric of STS-B."""

    def __init__(self) -> None:
        super().__init__("pearson")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute the correlation from ``scores`` (N, 1) or (N,) and ``targets`` (N,).

        Return 0 with a warning if all predictions or all targets are equal.
        """
        from scipy.stats import pearsonr

        predicted, true = _extract_values(self.name, sample_list, model_output)
        value = _compute_correlation(self.name, predicted, true, lambda a, b: pearsonr(a, b).statistic)
        return _on_device(value, model_output)


@registry.register_metric("spearman")
class Spearman(BaseMetric):
    """Spearman rank correlation of predicted and true values, in [-1, 1]; tied values get their mean rank."""

    def __init__(self) -> None:
        super().__init__("spearman")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute the correlation from ``scores`` (N, 1) or (N,) and ``targets`` (N,).

        Return 0 with a warning if all predictions or all targets are equal.
        """
        from scipy.stats import spearmanr

        predicted, true = _extract_values(self.name, sample_list, model_output)
        value = _compute_correlation(self.name, predicted, true, lambda a, b: spearmanr(a, b).statistic)
        return _on_device(value, model_output)


@registry.register_metric("accuracy_f1")
class AccuracyF1(BaseMetric):
    """Mean of accuracy and the F1 of class 1, in [0, 1]; the paper's metric for MRPC and QQP."""

    def __init__(self) -> None:
        super().__init__("accuracy_f1")

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute the metric from ``scores`` (N, 2) and ``targets`` (N,); F1 is 0 if class 1 does not occur."""
        from sklearn.metrics import f1_score

        predicted, true = _extract_classes(self.name, sample_list, model_output)
        value = float((predicted == true).mean() + f1_score(true, predicted, zero_division=0.0)) / 2
        return _on_device(value, model_output)


@registry.register_metric("roc_auc")
class RocAuc(BaseMetric):
    """Area under the ROC curve of each class against the others, averaged over classes; used for Hateful Memes.

    It replaces MMF's metric, which ranks samples by their fp32 softmax. This softmax is exactly 1 for margins above 17,
    so that the samples of which the model is most certain are tied.
    """

    average = "macro"

    def __init__(self, name: str = "roc_auc") -> None:
        super().__init__(name)

    def calculate(
        self, sample_list: Mapping[str, Any], model_output: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute the area from ``scores`` (N, C) and ``targets``, either (N,) classes or (N, C) zeros and ones.

        Return 0 with a warning if, for any class, all or none of the samples belong to it.
        """
        from sklearn.metrics import roc_auc_score

        scores, targets = model_output["scores"], sample_list["targets"]
        if scores.dim() != 2 or scores.shape[1] < 2 or targets.shape not in (scores.shape[:1], scores.shape):
            raise UserError(
                f"Metric {self.name}: expected scores of shape (N, C >= 2) and targets of shape (N,) or (N, C), got "
                f"{tuple(scores.shape)} and {tuple(targets.shape)}."
            )
        _check_finite(self.name, scores)
        if targets.dim() == 1:
            targets = one_hot(targets.long(), scores.shape[1])
        true = targets.cpu().numpy()
        if (undefined := (true.min(axis=0) == true.max(axis=0))).any():
            warnings.warn(
                f"Metric {self.name} is undefined because all or none of {len(true)} samples are of class "
                f"{int(undefined.argmax())}; 0 is returned.",
                stacklevel=2,
            )
            return _on_device(0.0, model_output)
        return _on_device(roc_auc_score(true, _margins(scores).cpu().numpy(), average=self.average), model_output)


@registry.register_metric("macro_roc_auc")
class MacroRocAuc(RocAuc):
    """The metric ``roc_auc`` under the additional name ``macro_roc_auc``, as in MMF."""

    def __init__(self) -> None:
        super().__init__("macro_roc_auc")


@registry.register_metric("micro_roc_auc")
class MicroRocAuc(RocAuc):
    """Micro-averaged ROC AUC: area under one ROC curve for the scores of all classes."""

    average = "micro"

    def __init__(self) -> None:
        super().__init__("micro_roc_auc")


def _margins(scores_NC: Tensor) -> Tensor:
    """Return (N, C) log odds of the softmax in fp64: the score of a class minus the logsumexp of the other scores."""
    scores = scores_NC.double()
    others = (scores[:, torch.arange(scores.shape[1]) != label] for label in range(scores.shape[1]))
    return scores - torch.stack([other.logsumexp(dim=1) for other in others], dim=1)


def _on_device(value: float, output: Mapping[str, Any]) -> Tensor:
    """Return a scalar tensor on the device of the scores, because MMF stacks the values of all metrics."""
    return torch.tensor(value, dtype=torch.float64, device=output["scores"].device)


def _extract_classes(
    name: str, sample_list: Mapping[str, Any], output: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted and the true classes, (N,) each."""
    scores, targets = output["scores"], sample_list["targets"]
    if scores.dim() != 2 or scores.shape[1] < 2 or targets.dim() != 1:
        raise UserError(
            f"Metric {name}: expected scores of shape (N, C >= 2) and targets of shape (N,), got "
            f"{tuple(scores.shape)} and {tuple(targets.shape)}. For regression use pearson or spearman."
        )
    _check_finite(name, scores)
    return scores.argmax(dim=1).cpu().numpy(), targets.cpu().numpy()


def _extract_values(
    name: str, sample_list: Mapping[str, Any], output: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted and the true values, (N,) each, in float64."""
    scores, targets = output["scores"], sample_list["targets"]
    if scores.numel() != targets.numel():
        raise UserError(
            f"Metric {name}: expected one score and one target per sample, got scores of shape {tuple(scores.shape)} "
            f"and targets of shape {tuple(targets.shape)}. For classification use accuracy, f1 or matthews."
        )
    _check_finite(name, scores)
    return scores.double().flatten().cpu().numpy(), targets.double().flatten().cpu().numpy()


def _check_finite(name: str, scores: Tensor) -> None:
    if bad := int((~scores.isfinite()).sum()):
        raise UserError(
            f"Metric {name}: {bad} of {scores.numel()} scores are NaN or infinite: the model has diverged. Train "
            "with a lower learning rate."
        )


def _compute_correlation(
    name: str, predicted: np.ndarray, true: np.ndarray, formula: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    for kind, values in (("predictions", predicted), ("targets", true)):
        if len(values) < 2 or (values == values[0]).all():
            warnings.warn(
                f"Metric {name} is undefined because all {len(values)} {kind} are equal; 0 is returned.", stacklevel=3
            )
            return 0.0
    return float(formula(predicted, true))
