"""Linear probe: logistic regression on frozen embeddings, with CLIP's sweep of the L2 penalty (FLAVA paper, B.2).

CLIP scores seven penalties from 1e-6 to 1e6 on validation samples, then halves the step around the best penalty four
times, down to an eighth of a decade, and finally fits on training and validation samples together. Embeddings are not
normalised.

Shapes: N samples, D width of an embedding.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmf_flava.config.flava_trainers import check_evaluated_dataset
from mmf_flava.config.run import LinearProbeConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.logistic_regression import Classifier, fit

PER_DECADE, FIRST_STEP = 8, 16  # grid points per decade; initial step of the search in grid points
SEED = 1


@dataclass
class LabelledEmbeddings:
    """Embeddings (N, D) and targets (N,); a target is -1 for a sample without a label."""

    embeddings: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: np.ndarray) -> "LabelledEmbeddings":
        return LabelledEmbeddings(self.embeddings[indices], self.targets[indices])

    def __add__(self, other: "LabelledEmbeddings") -> "LabelledEmbeddings":
        embeddings = np.concatenate((self.embeddings, other.embeddings))
        return LabelledEmbeddings(embeddings, np.concatenate((self.targets, other.targets)))

    def labelled(self) -> "LabelledEmbeddings":
        """Return the samples with a label."""
        labelled = self.targets >= 0
        return self if labelled.all() else self[labelled]


@dataclass
class Trial:
    """One penalty of the search, its validation score and the number of L-BFGS iterations."""

    penalty: float
    score: float
    iterations: int


@dataclass
class LinearProbeResult:
    """Result of a linear probe.

    Attributes:
        targets, predictions: (N,) labels of the test samples.
        penalty: the selected L2 penalty, lambda.
        metric: name of the metric that selected the penalty.
        trials: all penalties of the search.
        iterations: L-BFGS iterations of the final fit.
        samples: number of train, val, fitted (train + val) and test samples.
        classes: number of classes.
    """

    targets: np.ndarray
    predictions: np.ndarray
    penalty: float
    metric: str
    trials: list[Trial]
    iterations: int
    samples: dict[str, int]
    classes: int

    @property
    def accuracy(self) -> float:
        """Accuracy on the test samples, in [0, 1]."""
        return accuracy(self.targets, self.predictions)

    @property
    def mean_per_class(self) -> float:
        """Mean per-class accuracy on the test samples, in [0, 1]."""
        return mean_per_class(self.targets, self.predictions)

    def summary(self) -> dict[str, Any]:
        """Return the section ``linear_probe`` of ``evaluation.json``."""
        sweep = [{"lambda": t.penalty, self.metric: t.score, "iterations": t.iterations} for t in self.trials]
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
    """Return the fraction of correct predictions."""
    return float((targets == predictions).mean())


def mean_per_class(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Return the accuracy averaged over the classes that occur in ``targets``."""
    _, classes = np.unique(targets, return_inverse=True)
    return float((np.bincount(classes, targets == predictions) / np.bincount(classes)).mean())


METRICS = {"accuracy": accuracy, "mean_per_class": mean_per_class}


def check_config(config: LinearProbeConfig, datasets: Iterable[str]) -> None:
    """Check the recipe section ``evaluation.linear_probe``.

    Raises:
        UserError: the section names an unknown dataset.
    """
    check_evaluated_dataset("linear_probe", config.dataset, datasets)


def run_probe(
    train: LabelledEmbeddings,
    val: LabelledEmbeddings | None,
    test: LabelledEmbeddings,
    config: LinearProbeConfig,
    device: torch.device | str = "cpu",
) -> LinearProbeResult:
    """Select the L2 penalty on ``val``, fit on ``train`` and ``val`` together, and predict the classes of ``test``.

    Samples without a label are ignored. Without ``val``, the fraction ``val_share`` of the training samples of each
    class is held out to select the penalty.

    Raises:
        UserError: there are no labelled test samples, or too few labelled training samples or classes.
    """
    train, test = train.labelled(), test.labelled()
    if not len(test):
        raise UserError(
            f"evaluation.linear_probe: dataset '{config.dataset}' has no labelled test images. Choose another dataset."
        )
    val = None if val is None else val.labelled()
    train_and_val = train if val is None else train + val
    if val is None:
        held_out = holdout_mask(train.targets, config.val_share)
        train, val = train[~held_out], train[held_out]
    if not len(val):
        raise UserError(
            f"evaluation.linear_probe: dataset '{config.dataset}' has {len(train)} labelled training images, too few "
            "to select the penalty. Add training images or a val split, or increase val_share."
        )

    def fit_classifier(samples: LabelledEmbeddings, penalty: float) -> Classifier:
        return fit(samples.embeddings, samples.targets, penalty, config.solver, config.max_iterations, device)

    def run_trial(penalty: float) -> Trial:
        classifier = fit_classifier(train, penalty)
        score = METRICS[config.metric](val.targets, classifier.predict(val.embeddings))
        return Trial(penalty, score, classifier.iterations)

    trials = search_penalty(run_trial, *config.lambdas)
    penalty = best_trial(trials).penalty
    classifier = fit_classifier(train_and_val, penalty)
    return LinearProbeResult(
        targets=test.targets,
        predictions=classifier.predict(test.embeddings),
        penalty=penalty,
        metric=config.metric,
        trials=trials,
        iterations=classifier.iterations,
        samples={"train": len(train), "val": len(val), "fitted": len(train_and_val), "test": len(test)},
        classes=len(classifier.labels),
    )


def search_penalty(run_trial: Callable[[float], Trial], smallest: float, largest: float) -> list[Trial]:
    """Run CLIP's search for the best L2 penalty, and return all trials sorted by penalty.

    The grid has 8 penalties per decade. The search scores every 16th penalty of the grid, then repeatedly halves the
    step and scores both neighbours of the best penalty so far.
    """
    last = math.floor(math.log10(largest / smallest) * PER_DECADE + 1e-6)
    trials = {index: run_trial(smallest * 10 ** (index / PER_DECADE)) for index in [*range(0, last, FIRST_STEP), last]}
    step = FIRST_STEP // 2
    while step:
        peak = max(trials, key=lambda index: (trials[index].score, index))
        for index in (peak - step, peak + step):
            if 0 <= index <= last and index not in trials:
                trials[index] = run_trial(smallest * 10 ** (index / PER_DECADE))
        step //= 2
    return [trials[index] for index in sorted(trials)]


def best_trial(trials: Iterable[Trial]) -> Trial:
    """Return the trial with the best score; among equal scores, the trial with the largest penalty."""
    return max(trials, key=lambda trial: (trial.score, trial.penalty))


def holdout_mask(targets: np.ndarray, fraction: float) -> np.ndarray:
    """Return a deterministic, stratified (N,) bool mask that selects about ``fraction`` of each class."""
    order = np.random.default_rng(SEED).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    mask = np.zeros(len(targets), dtype=bool)
    mask[order] = np.diff(np.floor(np.arange(len(targets) + 1) * fraction)) > 0
    return mask
