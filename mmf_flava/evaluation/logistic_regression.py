"""Multinomial logistic regression by L-BFGS: scikit-learn's, and the same with its sums on torch's devices.

Both take SciPy's L-BFGS-B. torch's own learns nothing from a step whose product with the gradient's change is at most
1e-10, whatever the objective's scale: on 1,000 unscaled digits at lambda 1,000 it left out 597 of 999 steps and did not
come to the tolerance below in 1,000 iterations; with 0 in place of that bound it took 659, and SciPy's takes 768.

Both minimise what ``LogisticRegression(C=1 / lambda)`` does, over weights W and intercepts b:

    sum_n -log softmax(W x_n + b)[y_n]  +  lambda / 2 * |W|^2

The intercepts are not penalised. With two classes W has one row, and the other class's score is 0.

Shapes: N samples, D width of a vector, C classes, R rows of W (C, or 1 for two classes).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import log_softmax, pad

from mmf_flava.errors import UserError

# L-BFGS ends where no entry of the gradient of the objective / N is larger, or where the objective stands still.
# scikit-learn's default, 1e-4, was of the sum over samples when CLIP was made; of the mean it ends far too soon where
# classes are many, since already the first gradient has entries of about 1 / C.
TOLERANCE = 1e-6
STANDSTILL = 64 * float(np.finfo(np.float64).eps)
BLOCK_NUMBERS = 2**25  # float64s of a block of samples or of their scores: 256 MiB


@dataclass
class Classifier:
    """weight: (C, D); intercept: (C,); labels: (C,) those of the training data; iterations: of L-BFGS."""

    weight: np.ndarray
    intercept: np.ndarray
    labels: np.ndarray
    iterations: int

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) -> (N,) labels."""
        size = _block(*self.weight.shape)
        parts = [
            self.labels[(vectors[start : start + size] @ self.weight.T + self.intercept).argmax(1)]
            for start in range(0, len(vectors), size)
        ]
        return np.concatenate(parts)


def fit(
    vectors: np.ndarray,
    targets: np.ndarray,
    penalty: float,
    solver: str = "torch",
    max_iterations: int = 1000,
    device: torch.device | str = "cpu",
    tolerance: float = TOLERANCE,
) -> Classifier:
    """A classifier of the labels that occur.

    Args:
        vectors: (N, D) float32 or float64; all arithmetic is in float64.
        targets: (N,) int labels.
        penalty: the formula's lambda, above 0.
        solver: one of ``SOLVERS``; scikit-learn's knows no device.

    Raises:
        UserError: fewer than two labels occur, or a vector is not finite.
    """
    labels, classes = np.unique(targets, return_inverse=True)
    if len(labels) < 2:
        found = f"all {len(targets)} have label {labels[0]}" if len(labels) else "there is none"
        raise UserError(f"evaluation.linear_probe needs training images of two classes or more with a label; {found}.")
    if not np.isfinite(vectors.sum(dtype=np.float64)):  # a sum, since it makes no copy
        raise UserError("evaluation.linear_probe: some vectors of images are not finite; evaluate other weights.")
    return SOLVERS[solver](vectors, classes, labels, penalty, max_iterations, torch.device(device), tolerance)


def _fit_sklearn(
    vectors: np.ndarray,
    classes: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    max_iterations: int,
    device: torch.device,
    tolerance: float,
) -> Classifier:
    regression = LogisticRegression(C=1 / penalty, max_iter=max_iterations, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations says it
        regression.fit(vectors.astype(np.float64), classes)
    found = np.concatenate((regression.coef_, regression.intercept_[:, None]), axis=1)
    return _classifier(found, labels, int(regression.n_iter_[0]))


def _fit_torch(
    vectors: np.ndarray,
    classes: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    max_iterations: int,
    device: torch.device,
    tolerance: float,
) -> Classifier:
    objective = Objective(
        torch.from_numpy(np.ascontiguousarray(vectors)).to(device),
        torch.from_numpy(classes).to(device),
        len(labels),
        penalty,
    )

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(torch.from_numpy(flat).view(objective.shape).to(device))
        return value.item(), gradient.flatten().cpu().numpy()

    # what scikit-learn asks of it
    options = {"maxiter": max_iterations, "maxls": 50, "gtol": tolerance, "ftol": STANDSTILL}
    start = np.zeros(objective.shape).flatten()
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    return _classifier(found.x.reshape(objective.shape), labels, found.nit)


def _classifier(parameters: np.ndarray, labels: np.ndarray, iterations: int) -> Classifier:
    """Of W and b side by side, (R, D + 1)."""
    full = np.zeros((len(labels), parameters.shape[1]))
    full[-len(parameters) :] = parameters
    return Classifier(full[:, :-1], full[:, -1], labels, iterations)


class Objective:
    """The formula, divided by N, and its gradient; samples pass by in blocks that bound the memory.

    Args:
        vectors: (N, D), of any float type.
        classes: (N,) in [0, C).
    """

    def __init__(self, vectors: Tensor, classes: Tensor, count: int, penalty: float) -> None:
        self.vectors, self.classes, self.penalty = vectors, classes, penalty
        self.rows = count if count > 2 else 1
        self.hidden = count - self.rows  # classes whose score is 0
        self.shape = (self.rows, vectors.shape[1] + 1)
        self.block = _block(count, vectors.shape[1])

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D + 1) W and b side by side -> the value and the gradient."""
        weight, intercept = parameters[:, :-1], parameters[:, -1]
        size = len(self.vectors)
        value = self.penalty / 2 * weight.square().sum()
        gradient = torch.zeros_like(parameters)
        gradient[:, :-1] = self.penalty * weight
        for start in range(0, size, self.block):
            block = self.vectors[start : start + self.block].to(parameters.dtype)
            classes = self.classes[start : start + self.block, None]
            scores = pad(torch.addmm(intercept, block, weight.T), (self.hidden, 0))
            logs = log_softmax(scores, dim=1)
            value -= logs.gather(1, classes).sum()
            errors = logs.exp_()
            errors.scatter_add_(1, classes, torch.full_like(classes, -1, dtype=errors.dtype))
            errors = errors[:, self.hidden :]
            gradient[:, :-1].addmm_(errors.T, block)
            gradient[:, -1] += errors.sum(0)
        return value / size, gradient / size


def _block(classes: int, width: int) -> int:
    return max(1, BLOCK_NUMBERS // max(classes, width))


SOLVERS: dict[str, Callable[..., Classifier]] = {"torch": _fit_torch, "sklearn": _fit_sklearn}
