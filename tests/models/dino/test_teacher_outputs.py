"""Means and entropies of the teacher's outputs, by hand."""

import math

import pytest
import torch

from mmf_flava.models.dino.teacher_outputs import TeacherSums, entropy

LOG2 = math.log(2)


def test_entropy_by_hand():
    probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25]])
    expected = [0.0, LOG2, -0.75 * math.log(0.75) - 0.25 * math.log(0.25)]
    assert entropy(probabilities).tolist() == pytest.approx(expected)


def test_means_are_those_of_all_batches_by_hand():
    """Batches of two crops and of one crop."""
    sums = TeacherSums()
    sums.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    sums.add(torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    means = sums.means()
    assert means.logits.tolist() == pytest.approx([3.0, 2.0])
    assert means.entropy.item() == pytest.approx(LOG2 / 3)
    assert means.mean_entropy.item() == pytest.approx(LOG2)
    expected = {"teacher_entropy": LOG2 / 3, "teacher_mean_entropy": LOG2, "teacher_information": 2 * LOG2 / 3}
    assert means.statistics() == pytest.approx(expected)


@pytest.mark.parametrize("output", [[0.5, 0.5], [1.0, 0.0], [0.8, 0.2]])
def test_the_information_of_equal_outputs_is_zero(output):
    sums = TeacherSums()
    sums.add(torch.zeros(7, 2), torch.tensor([output] * 7))
    statistics = sums.means().statistics()
    assert statistics["teacher_information"] == pytest.approx(0, abs=1e-6)
    assert statistics["teacher_entropy"] == pytest.approx(statistics["teacher_mean_entropy"], abs=1e-6)


def test_cleared_batches_are_forgotten():
    sums = TeacherSums()
    sums.add(torch.ones(1, 2), torch.tensor([[0.5, 0.5]]))
    sums.clear()
    sums.add(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert sums.means().logits.tolist() == [0.0, 0.0]
