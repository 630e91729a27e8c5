"""Multinomial logistic regression with L-BFGS, by scikit-learn or by an equivalent implementation for torch devices.

Both use SciPy's L-BFGS-B. torch.optim.LBFGS is not used: it skips the update of the inverse Hessian if the dot product
of step and gradient change is at most 1e-10, regardless of the scale of the objective. On 1,000 unscaled digits with
lambda 1,000 it skipped 597 of 999 updates and did not reach GRADIENT_TOLERANCE in 1,000 iterations. With the threshold
set to 0 it needed 659 iterations; SciPy needs 768.

Both minimise the objective of ``LogisticRegression(C=1 / lambda)`` over weights W and intercepts b:

    sum_n -log softmax(W x_n + b)[y_n]  +  lambda / 2 * |W|^2

The intercepts are not penalised. With two classes W has one row, and the logit of the other class is 0.

Shapes: N = number of samples, D = embedding size, C = number of classes, R = rows of W (C, or 1 for two classes).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, pad

from mmf_flava.errors import UserError

# L-BFGS stops when no entry of the gradient of the mean objective exceeds GRADIENT_TOLERANCE, or when the relative
# decrease of the objective is below OBJECTIVE_TOLERANCE. scikit-learn's default of 1e-4 was applied to the sum over
# samples in the versions that CLIP used. Applied to the mean, it stops too early with many classes, because the
# entries of the first gradient are only about 1 / C.
GRADIENT_TOLERANCE = 1e-6
OBJECTIVE_TOLERANCE = 64 * float(np.finfo(np.float64).eps)
BLOCK_ELEMENTS = 2**25  # maximum number of float64 elements per block of samples or logits: 256 MiB


@dataclass
class Classifier:
    """A fitted linear classifier.

    Attributes:
        weight: (C, D).
        intercept: (C,).
        labels: (C,) label of each class in the training data.
        iterations: L-BFGS iterations.
    """

    weight: np.ndarray
    intercept: np.ndarray
    labels: np.ndarray
    iterations: int

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the (N,) predicted labels of (N, D) embeddings."""
        size = _block_size(*self.weight.shape)
        labels = [
            self.labels[(embeddings[start : start + size] @ self.weight.T + self.intercept).argmax(1)]
            for start in range(0, len(embeddings), size)
        ]
        return np.concatenate(labels)


def fit(
    embeddings: np.ndarray,
    targets: np.ndarray,
    penalty: float,
    solver: str = "torch",
    max_iterations: int = 1000,
    device: torch.device | str = "cpu",
    tolerance: float = GRADIENT_TOLERANCE,
) -> Classifier:
    """Fit a classifier for the labels that occur in ``targets``.

    Args:
        embeddings: (N, D) float32 or float64; computations use float64.
        targets: (N,) int labels.
        penalty: L2 penalty (lambda in the module docstring), greater than 0.
        solver: "torch" or "sklearn"; "sklearn" ignores ``device``.
        tolerance: maximum absolute value of the gradient's entries at convergence.

    Raises:
        UserError: ``targets`` has fewer than two labels, or an embedding is not finite.
    """
    labels, classes = np.unique(targets, return_inverse=True)
    if len(labels) < 2:
        found = f"label {labels[0]} for all {len(targets)} images" if len(labels) else "no labelled image"
        raise UserError(
            f"evaluation.linear_probe: labelled images of two classes are required, got {found}. Add labelled images."
        )
    if not np.isfinite(embeddings.sum(dtype=np.float64)):  # unlike isfinite(embeddings), needs no temporary array
        raise UserError("evaluation.linear_probe: some image embeddings are NaN or infinite. Use other weights.")
    return SOLVERS[solver](embeddings, classes, labels, penalty, max_iterations, torch.device(device), tolerance)


def _fit_sklearn(
    embeddings: np.ndarray,
    classes: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    max_iterations: int,
    device: torch.device,
    tolerance: float,
) -> Classifier:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=1 / penalty, max_iter=max_iterations, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Classifier.iterations shows whether the limit was reached
        regression.fit(embeddings.astype(np.float64), classes)
    parameters = np.concatenate((regression.coef_, regression.intercept_[:, None]), axis=1)
    return _build_classifier(parameters, labels, int(regression.n_iter_[0]))


def _fit_torch(
    embeddings: np.ndarray,
    classes: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    max_iterations: int,
    device: torch.device,
    tolerance: float,
) -> Classifier:
    from scipy.optimize import minimize

    objective = Objective(
        torch.from_numpy(np.ascontiguousarray(embeddings)).to(device),
        torch.from_numpy(classes).to(device),
        len(labels),
        penalty,
    )

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(torch.from_numpy(flat).view(objective.shape).to(device))
        return value.item(), gradient.flatten().cpu().numpy()

    # the same options as in scikit-learn
    options = {"maxiter": max_iterations, "maxls": 50, "gtol": tolerance, "ftol": OBJECTIVE_TOLERANCE}
    initial = np.zeros(objective.shape).flatten()
    result = minimize(value_and_gradient, initial, jac=True, method="L-BFGS-B", options=options)
    return _build_classifier(result.x.reshape(objective.shape), labels, result.nit)


def _build_classifier(parameters: np.ndarray, labels: np.ndarray, iterations: int) -> Classifier:
    """Build a classifier from concatenated weights and intercepts, one row per class (one row for two classes)."""
    full = np.zeros((len(labels), parameters.shape[1]))
    full[-len(parameters) :] = parameters
    return Classifier(full[:, :-1], full[:, -1], labels, iterations)


class Objective:
    """Mean objective of logistic regression per sample and its gradient, computed in blocks of samples to save memory.

    Args:
        embeddings: (N, D), any float dtype.
        classes: (N,) in [0, C).
        count: number of classes, C.
    """

    def __init__(self, embeddings: Tensor, classes: Tensor, count: int, penalty: float) -> None:
        self.embeddings, self.classes, self.penalty = embeddings, classes, penalty
        self.rows = count if count > 2 else 1
        self.implicit = count - self.rows  # number of classes whose logit is fixed to 0
        self.shape = (self.rows, embeddings.shape[1] + 1)
        self.block = _block_size(count, embeddings.shape[1])

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and the gradient of the objective.

        Args:
            parameters: concatenation of the weights W and the intercepts b, (R, D + 1).
        """
        weight, intercept = parameters[:, :-1], parameters[:, -1]
        size = len(self.embeddings)
        value = self.penalty / 2 * weight.square().sum()
        gradient = torch.zeros_like(parameters)
        gradient[:, :-1] = self.penalty * weight
        for start in range(0, size, self.block):
            block = self.embeddings[start : start + self.block].to(parameters.dtype)
            classes = self.classes[start : start + self.block, None]
            logits = pad(torch.addmm(intercept, block, weight.T), (self.implicit, 0))
            log_probabilities = log_softmax(logits, dim=1)
            value -= log_probabilities.gather(1, classes).sum()
            errors = log_probabilities.exp_()
            errors.scatter_add_(1, classes, torch.full_like(classes, -1, dtype=errors.dtype))
            errors = errors[:, self.implicit :]
            gradient[:, :-1].addmm_(errors.T, block)
            gradient[:, -1] += errors.sum(0)
        return value / size, gradient / size


def _block_size(classes: int, width: int) -> int:
    return max(1, BLOCK_ELEMENTS // max(classes, width))


SOLVERS: dict[str, Callable[..., Classifier]] = {"torch": _fit_torch, "sklearn": _fit_sklearn}
