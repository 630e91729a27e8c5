"""Masks of 0 and 1 as integers and floats equal masks of booleans in all encoders."""

import pytest
import torch

from mmf_flava.errors import UserError
from mmf_flava.models.padding_mask import to_bool_mask

DTYPES = [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_zero_and_one_are_converted(dtype):
    mask = to_bool_mask(torch.tensor([[1, 1, 0]]).to(dtype))
    assert mask.dtype == torch.bool and mask.tolist() == [[True, True, False]]
    assert to_bool_mask(None) is None


def test_additive_masks_raise():
    with pytest.raises(UserError, match="input_mask: expected booleans or 0 and 1"):
        to_bool_mask(torch.tensor([[0.0, float("-inf")]]))
