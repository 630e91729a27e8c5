"""The search for the penalty, and the probe on scikit-learn's digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmf_flava.config.run import LinearProbeConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.linear_probe import Labelled, Look, check, held_out, mean_per_class, probe, search

PIXELS, DIGITS = load_digits(return_X_y=True)
ALL = Labelled((PIXELS / 16).astype(np.float32), DIGITS)
CONFIG = LinearProbeConfig(max_iterations=50)


def test_clips_search_ends_an_eighth_of_a_decade_from_the_peak():
    peak = 10**1.3
    looks = search(lambda penalty: Look(penalty, -abs(np.log10(penalty / peak)), 1), 1e-6, 1e6)
    assert len(looks) == 7 + 4 * 2
    assert {1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6} <= {float(f"{look.penalty:.6g}") for look in looks}
    assert max(looks, key=lambda look: look.score).penalty == pytest.approx(10**1.25)


def test_a_share_of_each_class_is_held_out():
    chosen = held_out(DIGITS, 0.2)
    assert chosen.sum() == int(len(DIGITS) * 0.2)
    assert all(abs((DIGITS[chosen] == digit).sum() - 0.2 * (digit == DIGITS).sum()) <= 1 for digit in range(10))


def test_mean_per_class():
    assert mean_per_class(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("own_val", [True, False])
def test_digits(own_val):
    n = np.arange(len(DIGITS))
    train, val, test = ALL[n < 1000], ALL[(n >= 1000) & (n < 1300)], ALL[n >= 1300]
    summary = probe(train, val if own_val else None, test, CONFIG).summary()
    assert summary["accuracy"] > 0.9 and len(summary["sweep"]) >= 11
    assert summary["samples"]["fitted"] == (1300 if own_val else 1000)


def test_images_without_a_label_are_left_out():
    n = np.arange(600)
    targets = np.where(n % 3 == 0, -1, DIGITS[:600])
    samples = Labelled(ALL.vectors[:600], targets)
    train, val, test = samples[n < 300], samples[n // 100 == 3], samples[n >= 400]
    config = LinearProbeConfig(max_iterations=5)
    found = probe(train, val, test, config)
    assert found.samples == {"train": 200, "val": 66, "fitted": 266, "test": 134}
    assert found.classes == 10 and found.targets.tolist() == targets[400:][targets[400:] >= 0].tolist()
    clean = [Labelled(one.vectors[one.targets >= 0], one.targets[one.targets >= 0]) for one in (train, val, test)]
    assert found.summary() == probe(*clean, config).summary()


def test_too_few_labels_are_refused():
    unlabelled = Labelled(ALL.vectors, np.full(len(ALL), -1))
    with pytest.raises(UserError, match="no test image of dataset 'image_classification' has a label"):
        probe(ALL, None, unlabelled, CONFIG)
    with pytest.raises(UserError, match="has 4 training images with a label, too few"):
        probe(ALL[np.arange(4)], None, ALL, CONFIG)
    with pytest.raises(UserError, match="has 0 training images with a label, too few"):
        probe(unlabelled, None, ALL, CONFIG)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"dataset": "image_clasification"},
            r"dataset: .* not a dataset of this run\. Did you mean 'image_classificat",
        ),
        ({"solver": "skleran"}, r"solver.*skleran.*sklearn"),
        ({"metric": "accurracy"}, r"metric.*accurracy.*accuracy"),
        ({"max_iterations": 0}, r"max_iterations.*0"),
        ({"val_share": 1.0}, r"val_share is 1\.0; it is a share between 0 and 1"),
        ({"lambdas": [1e6, 1e-6]}, r"lambdas is \[1000000\.0, 1e-06\]"),
        ({"lambdas": [0.0, 1.0]}, r"lambdas is \[0\.0, 1\.0\]"),
        ({"lambdas": [1.0]}, r"lambdas is \[1\.0\]"),
    ],
)
def test_what_is_refused(option, message):
    check(LinearProbeConfig(), ["pmd", "image_classification"])
    with pytest.raises(UserError, match=r"^evaluation\.linear_probe\." + message):
        check(LinearProbeConfig(**option), ["pmd", "image_classification"])
