"""torch's logistic regression beside scikit-learn's, on scikit-learn's digits."""

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
    ours, theirs = (
        fit(PIXELS[TRAIN], DIGITS[TRAIN], penalty, solver, tolerance=1e-4) for solver in ("torch", "sklearn")
    )
    assert np.abs(ours.weight - theirs.weight).max() < 1e-3 * np.abs(theirs.weight).max()
    right = [(one.predict(PIXELS[TEST]) == DIGITS[TEST]).mean() for one in (ours, theirs)]
    assert abs(right[0] - right[1]) <= 0.001


def test_two_classes_have_one_row():
    chosen = DIGITS < 2
    ours, theirs = (fit(PIXELS[chosen], DIGITS[chosen], 1.0, solver) for solver in ("torch", "sklearn"))
    assert np.allclose(ours.weight, theirs.weight, atol=1e-4)
    assert not ours.weight[0].any() and ours.weight[1].any()


def test_a_class_that_is_absent_is_never_told():
    chosen = DIGITS[TRAIN] != 4
    found = fit(PIXELS[TRAIN][chosen], DIGITS[TRAIN][chosen], 1.0)
    assert 4 not in found.labels and 4 not in found.predict(PIXELS[TEST])


def test_one_sample_a_class():
    assert fit(PIXELS[:10], DIGITS[:10], 1e-3).predict(PIXELS[:10]).tolist() == DIGITS[:10].tolist()


@pytest.mark.parametrize("targets", [[3, 3, 3], []])
def test_one_class_is_refused(targets):
    with pytest.raises(UserError, match="two classes"):
        fit(PIXELS[: len(targets)], np.array(targets, dtype=np.int64), 1.0)
