"""Tests that batches of a dataset that is sorted by class have about as many samples of each class as uniform draws."""

import numpy as np
import pytest

from mmf_flava.data.order import Order, Unit

BATCH, CLASSES, PER_SHARD = 512, 10, 100
SIZE = 200_000


def class_counts(lanes, batches):
    """Return the number of samples of each class in each batch. Record n has the class n * CLASSES / SIZE."""
    order = Order(SIZE, 3, True, [Unit(first, 1, PER_SHARD) for first in range(0, SIZE, PER_SHARD)], lanes)
    classes = [order.index(n) * CLASSES // SIZE for n in range(batches * BATCH)]
    return np.array([np.bincount(batch, minlength=CLASSES) for batch in np.array(classes).reshape(batches, BATCH)])


EXPECTED = BATCH / CLASSES
VARIANCE = BATCH / CLASSES * (1 - 1 / CLASSES)  # of uniform draws


def test_batch_with_a_lane_per_sample_resembles_uniform_draws():
    counts = class_counts(BATCH, 40)
    deviations = np.abs(counts - EXPECTED) / VARIANCE**0.5
    # 400 uniform draws exceed three standard deviations about once
    assert (deviations > 3).sum() <= 3 and ((counts - EXPECTED) ** 2).mean() < 1.2 * VARIANCE
    assert len(np.unique(counts[:, 0])) > 3, "batches must differ"


@pytest.mark.parametrize("lanes", [256, 64])
def test_variance_is_at_most_that_of_the_samples_of_a_lane(lanes):
    """The samples of a lane in a batch often come from one shard, so the counts vary like those of ``lanes`` draws."""
    variance = ((class_counts(lanes, 60) - EXPECTED) ** 2).mean()
    assert variance < 1.1 * BATCH / lanes * VARIANCE
    assert ((class_counts(8, 60) - EXPECTED) ** 2).mean() > 10 * VARIANCE, "few lanes must not pass"
