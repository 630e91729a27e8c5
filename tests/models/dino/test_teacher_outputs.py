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
    """Two batches of the two crops of one image."""
    sums = TeacherSums()
    sums.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    sums.add(torch.tensor([[5.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    means = sums.means()
    assert means.logits.tolist() == pytest.approx([3.0, 2.0])
    assert means.entropy.item() == pytest.approx(LOG2 / 2)
    assert means.mean_entropy.item() == pytest.approx(LOG2)
    # no batch has two images
    expected = {"teacher_entropy": LOG2 / 2, "teacher_mean_entropy": LOG2, "teacher_information": LOG2 / 2}
    assert means.statistics() == pytest.approx(expected)


def test_separation_by_hand():
    """Two images. The crops of image 0 agree, those of image 1 do not: 0, 1 | 0, 0.5 as probabilities of output 0."""
    sums = TeacherSums()
    sums.add(torch.zeros(4, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    mixed = entropy(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))[0].item()
    same = (0 + (mixed - LOG2 / 2)) / 2
    other = ((mixed - LOG2 / 2) + LOG2) / 2  # image 0 with crop 1 of image 1, image 1 with crop 1 of image 0
    means = sums.means()
    assert (means.same.item(), means.other.item()) == pytest.approx((same, other))
    assert means.statistics()["teacher_separation"] == pytest.approx(1 - same / other)


@pytest.mark.parametrize("output", [[0.5, 0.5], [1.0, 0.0], [0.8, 0.2]])
def test_the_information_of_equal_outputs_is_zero(output):
    sums = TeacherSums()
    sums.add(torch.zeros(8, 2), torch.tensor([output] * 8))
    statistics = sums.means().statistics()
    assert statistics["teacher_information"] == pytest.approx(0, abs=1e-6)
    assert statistics["teacher_entropy"] == pytest.approx(statistics["teacher_mean_entropy"], abs=1e-6)


def test_cleared_batches_are_forgotten():
    sums = TeacherSums()
    sums.add(torch.ones(2, 2), torch.tensor([[0.5, 0.5]] * 2))
    sums.clear()
    sums.add(torch.zeros(2, 2), torch.tensor([[1.0, 0.0]] * 2))
    assert sums.means().logits.tolist() == [0.0, 0.0]
