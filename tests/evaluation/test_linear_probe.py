"""The search for the penalty, and the probe on scikit-learn's digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmf_flava.config.run import LinearProbeConfig
from mmf_flava.evaluation.linear_probe import Labelled, Look, held_out, mean_per_class, probe, search

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
