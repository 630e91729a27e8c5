"""The search for the penalty, and the linear probe on scikit-learn's digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmf_flava.config.run import LinearProbeConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.linear_probe import (
    LabelledEmbeddings,
    Trial,
    check_config,
    holdout_mask,
    mean_per_class,
    run_probe,
    search_penalty,
)

PIXELS, DIGITS = load_digits(return_X_y=True)
ALL = LabelledEmbeddings((PIXELS / 16).astype(np.float32), DIGITS)
CONFIG = LinearProbeConfig(max_iterations=50)


def test_search_finds_the_best_penalty_within_an_eighth_of_a_decade():
    peak = 10**1.3
    trials = search_penalty(lambda penalty: Trial(penalty, -abs(np.log10(penalty / peak)), 1), 1e-6, 1e6)
    assert len(trials) == 7 + 4 * 2
    assert {1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6} <= {float(f"{trial.penalty:.6g}") for trial in trials}
    assert max(trials, key=lambda trial: trial.score).penalty == pytest.approx(10**1.25)


def test_holdout_is_stratified():
    mask = holdout_mask(DIGITS, 0.2)
    assert mask.sum() == int(len(DIGITS) * 0.2)
    assert all(abs((DIGITS[mask] == digit).sum() - 0.2 * (digit == DIGITS).sum()) <= 1 for digit in range(10))


def test_mean_per_class():
    assert mean_per_class(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("has_val", [True, False])
def test_probe_on_digits(has_val):
    n = np.arange(len(DIGITS))
    train, val, test = ALL[n < 1000], ALL[(n >= 1000) & (n < 1300)], ALL[n >= 1300]
    summary = run_probe(train, val if has_val else None, test, CONFIG).summary()
    assert summary["accuracy"] > 0.9 and len(summary["sweep"]) >= 11
    assert summary["samples"]["fitted"] == (1300 if has_val else 1000)


def test_unlabelled_images_are_ignored():
    n = np.arange(600)
    targets = np.where(n % 3 == 0, -1, DIGITS[:600])
    samples = LabelledEmbeddings(ALL.embeddings[:600], targets)
    train, val, test = samples[n < 300], samples[n // 100 == 3], samples[n >= 400]
    config = LinearProbeConfig(max_iterations=5)
    result = run_probe(train, val, test, config)
    assert result.samples == {"train": 200, "val": 66, "fitted": 266, "test": 134}
    assert result.classes == 10 and result.targets.tolist() == targets[400:][targets[400:] >= 0].tolist()
    labelled = [samples[samples.targets >= 0] for samples in (train, val, test)]
    assert result.summary() == run_probe(*labelled, config).summary()


def test_too_few_labels_raise():
    unlabelled = LabelledEmbeddings(ALL.embeddings, np.full(len(ALL), -1))
    with pytest.raises(UserError, match="dataset 'image_classification' has no labelled test images"):
        run_probe(ALL, None, unlabelled, CONFIG)
    with pytest.raises(UserError, match="has 4 labelled training images, too few"):
        run_probe(ALL[np.arange(4)], None, ALL, CONFIG)
    with pytest.raises(UserError, match="has 0 labelled training images, too few"):
        run_probe(unlabelled, None, ALL, CONFIG)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"dataset": "image_clasification"},
            r"dataset: unknown dataset 'image_clasification'\. Did you mean 'image_classificat",
        ),
    ],
)
def test_invalid_options_raise(option, message):
    check_config(LinearProbeConfig(), ["pmd", "image_classification"])
    with pytest.raises(UserError, match=r"^evaluation\.linear_probe\." + message):
        check_config(LinearProbeConfig(**option), ["pmd", "image_classification"])
