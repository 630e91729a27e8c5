"""The encoder of DALL-E's dVAE, which is FLAVA's image codebook (FLAVA paper, §3.2).

It encodes 112 x 112 pixels to 14 x 14 codes in [0, 8192). The layers are the same as in OpenAI's
``dall_e.Encoder``; parameters are named as in Hugging Face's ``FlavaImageCodebook``.

Shapes: B = batch size, h x w = image size of the codebook's input, P = codes per image (row-major), N = number of
masked patches, C = channels, V = vocabulary size.
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mmf_flava.models.codebook.frozen import Frozen
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.models.last_block import select

LOGIT_LAPLACE_EPS = 0.1  # the dVAE was trained on pixels in [0.1, 0.9]


class DalleEncoder(Frozen):
    """The frozen dVAE encoder: no gradients, always in eval mode, and with a fixed dtype.

    Args:
        vocab_size, hidden_size, num_groups, num_blocks_per_group: 8192, 256, 4 and 2 in the released weights. All
            groups except the first double the channels, and all groups except the last halve the resolution.
        dtype: dtype of all convolutions except the last, which uses fp32 as in OpenAI's code. In half precision many of
            the 8,192 logits would round to the same value, and the argmax would change.
        channels_last: whether weights and activations use the channels_last memory format.
    """

    def __init__(
        self,
        vocab_size: int = 8192,
        hidden_size: int = 256,
        num_groups: int = 4,
        num_blocks_per_group: int = 2,
        dtype: str = "fp32",
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (num_groups - 1)
        layers = num_groups * num_blocks_per_group
        blocks: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(3, hidden_size, 7, padding=3))
        width = hidden_size
        for number in range(1, num_groups + 1):
            out = hidden_size * 2 ** (number - 1)
            blocks[f"group_{number}"] = Group(num_blocks_per_group, layers, width, out, pool=number < num_groups)
            width = out
        blocks["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(width, vocab_size, 1)))
        self.blocks = nn.Sequential(blocks)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._set_dtype(DTYPES[dtype])
        self.freeze()

    def _set_dtype(self, dtype: torch.dtype) -> None:
        for name, parameter in self.blocks.named_parameters():
            kept = torch.float32 if name.startswith("output.") else dtype
            parameter.data = parameter.data.to(kept)
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self.memory_format)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all convolutions except the last."""
        return self.blocks.input.weight.dtype  # type: ignore[union-attr,return-value]

    @property
    def _output(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.blocks.get_submodule("output.conv"))

    @torch.no_grad()
    def _hidden(self, image_B3hw: Tensor) -> Tensor:
        """Return the (B, C, H / stride, W / stride) input of the last convolution (1 x 1), in fp32."""
        with torch.autocast(image_B3hw.device.type, enabled=False):
            pixels = (1 - 2 * LOGIT_LAPLACE_EPS) * image_B3hw.float() + LOGIT_LAPLACE_EPS
            states = pixels.to(self.dtype).contiguous(memory_format=self.memory_format)
            *hidden, output = self.blocks
            for block in hidden:
                states = block(states)
            return output.relu(states.float())  # type: ignore[operator]

    @torch.no_grad()
    def logits(self, image_B3hw: Tensor) -> Tensor:
        """Return the fp32 logits of images with values in [0, 1]: (B, vocabulary size, H / stride, W / stride)."""
        states = self._hidden(image_B3hw)
        with torch.autocast(image_B3hw.device.type, enabled=False):
            return self._output(states)

    def forward(self, image_B3hw: Tensor) -> Tensor:
        """Return the (B, number of codes per image) codes of images with values in [0, 1]."""
        return self.logits(image_B3hw).argmax(dim=1).flatten(1)

    @torch.no_grad()
    def chunk_codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, count: int) -> Tensor:
        """Return the (N,) codes of masked patches; the last convolution (1/8 of the FLOPs) skips unmasked patches."""
        conv = self._output
        states = select(self._hidden(image_B3hw).flatten(2).transpose(1, 2), mask_BP, count)
        with torch.autocast(image_B3hw.device.type, enabled=False):
            return linear(states, conv.weight.flatten(1), conv.bias).argmax(dim=1)


class Group(nn.Module):
    """Residual blocks of equal resolution, optionally followed by max pooling that halves the resolution."""

    def __init__(self, num_blocks: int, num_layers: int, width: int, out: int, pool: bool) -> None:
        super().__init__()
        group: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, num_blocks + 1):
            group[f"block_{number}"] = Block(width if number == 1 else out, out, num_layers)
        if pool:
            group["pool"] = nn.MaxPool2d(2)
        self.group = nn.Sequential(group)

    def forward(self, states: Tensor) -> Tensor:
        return self.group(states)


class Block(nn.Module):
    """A residual bottleneck block; the residual path is scaled by 1 / (number of layers of the encoder)^2."""

    def __init__(self, width: int, out: int, num_layers: int) -> None:
        super().__init__()
        self.post_gain = 1 / num_layers**2
        self.id_path = nn.Identity() if width == out else nn.Conv2d(width, out, 1)
        self.res_path = ResidualPath(width, out)

    def forward(self, states: Tensor) -> Tensor:
        return torch.add(self.id_path(states), self.res_path(states), alpha=self.post_gain)


class ResidualPath(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        path: OrderedDict[str, nn.Module] = OrderedDict()
        hidden = out // 4
        sizes = [(width, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, out, 1)]
        for number, (before, after, kernel) in enumerate(sizes, 1):
            path[f"relu_{number}"] = nn.ReLU(inplace=number > 1)  # the identity path also uses the input of the block
            path[f"conv_{number}"] = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        self.path = nn.Sequential(path)

    def forward(self, states: Tensor) -> Tensor:
        return self.path(states)
