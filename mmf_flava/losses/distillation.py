"""The self-distillation loss of DINO (Caron et al., 2021, section 3.1, equation 3).

Shapes: B = batch size, C = number of crops of an image, K = number of outputs of the head.
"""

from typing import Any

import torch
from mmf.common.registry import registry
from torch import Tensor, nn

from mmf_flava.models.outputs import Distillation


def distillation_loss(distillation: Distillation) -> Tensor:
    """Return the mean cross entropy of the student's outputs for a crop and the teacher's for another crop.

    It is the mean over the images and over the 2 (C - 1) pairs of a global crop of the teacher and another crop of the
    student. The logits are used in fp32: a temperature of 0.1 multiplies their rounding errors by 10.
    """
    student_CBK, teacher_2BK = distillation.student, distillation.teacher.float()
    targets = [teacher_2BK[1], teacher_2BK[0]]  # each global crop is compared with the other one
    targets += [teacher_2BK.sum(dim=0)] * (len(student_CBK) - 2)
    losses = [
        -(target * torch.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()
        for logits, target in zip(student_CBK, targets, strict=True)
    ]
    return torch.stack(losses).sum() / (2 * (len(student_CBK) - 1))


@registry.register_loss("flava_dino")
class SelfDistillation(nn.Module):
    """DINO's loss: the student predicts the teacher's output for other crops of the same image."""

    needs, mean_over = "dino", "samples"

    def forward(self, sample_list: Any, model_output: dict[str, Any]) -> Tensor:
        distillation: Distillation = model_output[self.needs]
        return distillation_loss(distillation)
