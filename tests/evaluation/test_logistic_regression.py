"""Compares torch's logistic regression with scikit-learn's on scikit-learn's digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmf_flava.errors import UserError
from mmf_flava.evaluation.logistic_regression import fit

PIXELS, DIGITS = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype(np.float32)
TRAIN, TEST = slice(0, 1000), slice(1000, None)


@pytest.mark.parametrize("penalty", [1e-4, 1e-1, 1e1, 1e3])
def test_torch_agrees_with_scikit_learn(penalty):
    torch_fit, sklearn_fit = (
        fit(PIXELS[TRAIN], DIGITS[TRAIN], penalty, solver, tolerance=1e-4) for solver in ("torch", "sklearn")
    )
    assert np.abs(torch_fit.weight - sklearn_fit.weight).max() < 1e-3 * np.abs(sklearn_fit.weight).max()
    accuracy = [(classifier.predict(PIXELS[TEST]) == DIGITS[TEST]).mean() for classifier in (torch_fit, sklearn_fit)]
    assert abs(accuracy[0] - accuracy[1]) <= 0.001


def test_two_classes_have_one_weight_vector():
    mask = DIGITS < 2
    torch_fit, sklearn_fit = (fit(PIXELS[mask], DIGITS[mask], 1.0, solver) for solver in ("torch", "sklearn"))
    assert np.allclose(torch_fit.weight, sklearn_fit.weight, atol=1e-4)
    assert not torch_fit.weight[0].any() and torch_fit.weight[1].any()


def test_missing_class_is_never_predicted():
    mask = DIGITS[TRAIN] != 4
    classifier = fit(PIXELS[TRAIN][mask], DIGITS[TRAIN][mask], 1.0)
    assert 4 not in classifier.labels and 4 not in classifier.predict(PIXELS[TEST])


def test_one_sample_per_class():
    assert fit(PIXELS[:10], DIGITS[:10], 1e-3).predict(PIXELS[:10]).tolist() == DIGITS[:10].tolist()


@pytest.mark.parametrize("targets", [[3, 3, 3], []])
def test_fewer_than_two_classes_raise(targets):
    with pytest.raises(UserError, match="two classes"):
        fit(PIXELS[: len(targets)], np.array(targets, dtype=np.int64), 1.0)
