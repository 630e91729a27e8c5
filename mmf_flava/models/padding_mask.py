"""Conversion of the attention masks of padded texts.

Shapes: B = batch size, T = number of tokens.
"""

import torch
from torch import Tensor

from mmf_flava.errors import UserError


def to_bool_mask(mask_BT: Tensor | None) -> Tensor | None:
    """Convert a mask of booleans, or of 0 and 1 (integers or floats), to booleans: True for tokens, False for padding.

    Raises:
        UserError: a float mask has values other than 0 and 1, such as Hugging Face's additive masks (0 and -inf). The
            values are not checked while the model is compiled or exported.
    """
    if mask_BT is None or mask_BT.dtype == torch.bool:
        return mask_BT
    checked = mask_BT.is_floating_point() and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
    if checked and not ((mask_BT == 0) | (mask_BT == 1)).all():
        raise UserError(
            "input_mask: expected booleans or 0 and 1, got other numbers. Pass 1 for tokens, 0 for padding."
        )
    return mask_BT != 0
