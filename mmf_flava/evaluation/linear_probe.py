"""The linear probe (B.2): logistic regression on frozen vectors, its penalty found by CLIP's search.

CLIP looks at seven penalties, 1e-6 to 1e6, on validation samples, halves the distance around the best four times, until
it is an eighth of a decade, and then fits on training and validation samples together. Vectors are taken as they are.

Shapes: N samples, D width of a vector.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmf_flava.config.run import PROBE_METRICS, PROBE_SOLVERS, LinearProbeConfig
from mmf_flava.config.schema import near_miss, one_of, positive
from mmf_flava.errors import UserError
from mmf_flava.evaluation.logistic_regression import Classifier, fit

A_DECADE, FIRST_STEP = 8, 16  # penalties a decade; how far apart the first looks are
SEED = 1


@dataclass
class Labelled:
    """vectors: (N, D); targets: (N,), -1 without a label."""

    vectors: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: np.ndarray) -> "Labelled":
        return Labelled(self.vectors[chosen], self.targets[chosen])

    def __add__(self, other: "Labelled") -> "Labelled":
        return Labelled(np.concatenate((self.vectors, other.vectors)), np.concatenate((self.targets, other.targets)))


@dataclass
class Look:
    """One penalty of the search: the metric on validation samples, and L-BFGS's iterations."""

    penalty: float
    score: float
    iterations: int


@dataclass
class LinearProbeResult:
    """targets, predictions: (N,) of the test samples; samples: how many were fitted on, chosen with, tested on."""

    targets: np.ndarray
    predictions: np.ndarray
    penalty: float
    metric: str
    looks: list[Look]
    iterations: int
    samples: dict[str, int]
    classes: int

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return accuracy(self.targets, self.predictions)

    @property
    def mean_per_class(self) -> float:
        """In [0, 1]."""
        return mean_per_class(self.targets, self.predictions)

    def summary(self) -> dict[str, Any]:
        """What goes into ``evaluation.json``."""
        sweep = [{"lambda": one.penalty, self.metric: one.score, "iterations": one.iterations} for one in self.looks]
        return {
            "accuracy": self.accuracy,
            "mean_per_class": self.mean_per_class,
            "lambda": self.penalty,
            "metric": self.metric,
            "count": len(self.targets),
            "samples": self.samples,
            "classes": self.classes,
            "iterations": self.iterations,
            "sweep": sweep,
        }


def accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Share of samples that were told right."""
    return float((targets == predictions).mean())


def mean_per_class(targets: np.ndarray, predictions: np.ndarray) -> float:
    """The mean over the classes that occur of the share of their samples that were told right."""
    _, classes = np.unique(targets, return_inverse=True)
    return float((np.bincount(classes, targets == predictions) / np.bincount(classes)).mean())


METRICS = {"accuracy": accuracy, "mean_per_class": mean_per_class}


def check(config: LinearProbeConfig, datasets: Iterable[str]) -> None:
    """Refuses a section that cannot be run.

    Raises:
        UserError: an unknown dataset, solver or metric, or a number that cannot be.
    """
    where = "evaluation.linear_probe"
    if config.dataset not in (names := list(datasets)):
        raise UserError(
            f"{where}.dataset: '{config.dataset}' is not a dataset of this run.{near_miss(config.dataset, names)}"
        )
    one_of(config.solver, PROBE_SOLVERS, f"{where}.solver")
    one_of(config.metric, PROBE_METRICS, f"{where}.metric")
    positive(config.max_iterations, f"{where}.max_iterations")
    if not 0 < config.val_share < 1:
        raise UserError(f"{where}.val_share is {config.val_share}; it is a share between 0 and 1.")
    if len(config.lambdas) != 2 or not 0 < config.lambdas[0] <= config.lambdas[1] < math.inf:
        raise UserError(
            f"{where}.lambdas is {config.lambdas}; it is the least and the largest penalty, e.g. [1.0e-6, 1.0e+6]."
        )


def probe(
    train: Labelled, val: Labelled | None, test: Labelled, config: LinearProbeConfig, device: torch.device | str = "cpu"
) -> LinearProbeResult:
    """Chooses the penalty on ``val``, fits on ``train`` and ``val`` together, and tells the classes of ``test``.

    Samples without a label are left out. Without ``val`` a share of the training samples of each class takes its place.

    Raises:
        UserError: nothing to test on, or too few samples or classes to learn from.
    """
    train, test = _labelled(train), _labelled(test)
    if not len(test):
        raise UserError(f"evaluation.linear_probe: no test image of dataset '{config.dataset}' has a label.")
    val = None if val is None else _labelled(val)
    everything = train if val is None else train + val
    if val is None:
        chosen = held_out(train.targets, config.val_share)
        train, val = train[~chosen], train[chosen]
    if not len(val):
        raise UserError(
            f"evaluation.linear_probe: dataset '{config.dataset}' has {len(train)} training images with a label, too "
            "few to choose the penalty with; give more, a val split, or a larger val_share."
        )

    def fitted(on: Labelled, penalty: float) -> Classifier:
        return fit(on.vectors, on.targets, penalty, config.solver, config.max_iterations, device)

    def look(penalty: float) -> Look:
        classifier = fitted(train, penalty)
        score = METRICS[config.metric](val.targets, classifier.predict(val.vectors))
        return Look(penalty, score, classifier.iterations)

    looks = search(look, *config.lambdas)
    penalty = best(looks).penalty
    classifier = fitted(everything, penalty)
    return LinearProbeResult(
        targets=test.targets,
        predictions=classifier.predict(test.vectors),
        penalty=penalty,
        metric=config.metric,
        looks=looks,
        iterations=classifier.iterations,
        samples={"train": len(train), "val": len(val), "fitted": len(everything), "test": len(test)},
        classes=len(classifier.labels),
    )


def search(look: Callable[[float], Look], least: float, largest: float) -> list[Look]:
    """Every look that CLIP's search takes, in the order of their penalties.

    The search goes over a grid of 8 penalties a decade: every 16th at first, then at half the distance on both sides of
    the best so far, and so on.
    """
    last = math.floor(math.log10(largest / least) * A_DECADE + 1e-6)
    taken = {place: look(least * 10 ** (place / A_DECADE)) for place in [*range(0, last, FIRST_STEP), last]}
    step = FIRST_STEP // 2
    while step:
        peak = max(taken, key=lambda place: (taken[place].score, place))
        for place in (peak - step, peak + step):
            if 0 <= place <= last and place not in taken:
                taken[place] = look(least * 10 ** (place / A_DECADE))
        step //= 2
    return [taken[place] for place in sorted(taken)]


def best(looks: Iterable[Look]) -> Look:
    """The best score; of several the strongest penalty, which makes the plainest classifier."""
    return max(looks, key=lambda one: (one.score, one.penalty))


def held_out(targets: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: which samples are set aside, the same at every call, about the share of each class."""
    order = np.random.default_rng(SEED).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    chosen = np.zeros(len(targets), dtype=bool)
    chosen[order] = np.diff(np.floor(np.arange(len(targets) + 1) * share)) > 0
    return chosen


def _labelled(samples: Labelled) -> Labelled:
    known = samples.targets >= 0
    return samples if known.all() else samples[known]
