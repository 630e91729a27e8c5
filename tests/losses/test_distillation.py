"""The self-distillation loss on small inputs, against results computed by hand."""

import math

import pytest
import torch
from mmf.common.registry import registry

import mmf_flava.plugin  # noqa: F401  registers the loss
from mmf_flava.losses.distillation import distillation_loss
from mmf_flava.models.outputs import Distillation

LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)
# two images, two outputs: probabilities of the student 1/2, 1/2 or, for the logit log 3, 3/4, 1/4
UNIFORM, SHARP = [0.0, 0.0], [LOG3, 0.0]


def loss(student, teacher):
    return distillation_loss(Distillation(torch.tensor(student), torch.tensor(teacher)))


def test_two_global_crops_by_hand():
    """Crop 0 of the student is compared with crop 1 of the teacher, and crop 1 with crop 0."""
    student = [[SHARP], [UNIFORM]]
    teacher = [[[1.0, 0.0]], [[0.5, 0.5]]]
    first = -(math.log(0.75) + math.log(0.25)) / 2
    assert loss(student, teacher).item() == pytest.approx((first + LOG2) / 2)


def test_a_local_crop_is_compared_with_both_global_crops_by_hand():
    """Four pairs: (0, teacher 1), (1, teacher 0), (2, teacher 0), (2, teacher 1)."""
    student = [[UNIFORM], [UNIFORM], [SHARP]]
    teacher = [[[1.0, 0.0]], [[0.0, 1.0]]]
    assert loss(student, teacher).item() == pytest.approx((LOG2 + LOG2 - math.log(0.75) + LOG4) / 4)


def test_mean_over_images_by_hand():
    student = [[UNIFORM, SHARP], [UNIFORM, SHARP]]
    teacher = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    assert loss(student, teacher).item() == pytest.approx((LOG2 + LOG4) / 2)


def test_the_gradient_is_the_difference_of_the_probabilities():
    student = torch.tensor([[SHARP], [UNIFORM]], requires_grad=True)
    distillation_loss(Distillation(student, torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]))).backward()
    expected = torch.tensor([[[0.75 - 0.5, 0.25 - 0.5]], [[0.5 - 1.0, 0.5 - 0.0]]]) / 2
    torch.testing.assert_close(student.grad, expected)


def test_logits_are_used_in_fp32_under_autocast():
    student = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = torch.full((2, 4, 16), 1 / 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation_loss(Distillation(student, teacher))
    assert found.dtype == torch.float32
    assert found.item() == distillation_loss(Distillation(student, teacher)).item() > 0


def test_the_loss_is_registered():
    assert registry.get_loss_class("flava_dino").needs == "dino"
