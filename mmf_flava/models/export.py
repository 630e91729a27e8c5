"""Export of one encoder with ``torch.export``, with a dynamic batch size; ``torch.onnx.export`` accepts the result.

Shapes: B = batch size, H = image size, T = number of tokens, L = length of the multimodal sequence, D = hidden size,
E = projection size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmf_flava.config.schema import check_choice
from mmf_flava.models.flava import Flava

MAX_LENGTH = 77  # tokens per text, as in the evaluations


class EncodeImage(nn.Module):
    """``Flava.encode_image`` as a module. The argument names become the names of the ONNX inputs."""

    def __init__(self, flava: Flava) -> None:
        super().__init__()
        self.flava = flava

    def forward(self, image: Tensor) -> Tensor:
        return self.flava.encode_image(image)


class EncodeText(EncodeImage):
    """``Flava.encode_text`` as a module."""

    def forward(self, input_ids: Tensor, input_mask: Tensor) -> Tensor:  # type: ignore[override]
        return self.flava.encode_text(input_ids, input_mask)


class EncodeMultimodal(EncodeImage):
    """``Flava.encode_multimodal`` as a module."""

    def forward(self, image: Tensor, input_ids: Tensor, input_mask: Tensor) -> Tensor:  # type: ignore[override]
        return self.flava.encode_multimodal(image, input_ids, input_mask)


# kind of encoder -> module, names of its inputs
KINDS: dict[str, tuple[type[EncodeImage], tuple[str, ...]]] = {
    "image": (EncodeImage, ("image",)),
    "text": (EncodeText, ("input_ids", "input_mask")),
    "multimodal": (EncodeMultimodal, ("image", "input_ids", "input_mask")),
}


def export_encoder(model: nn.Module, kind: str, max_length: int = MAX_LENGTH) -> ExportedProgram:
    """Export one encoder of a FLAVA model. Only the batch size is dynamic.

    Args:
        model: a ``Flava``, or a model whose attribute ``flava`` is a ``Flava``.
        kind: ``image`` exports image (B, 3, H, H) -> embeddings (B, projection size). ``text`` exports input_ids (B, T)
            int64, input_mask (B, T) bool -> embeddings (B, projection size). ``multimodal`` exports image, input_ids,
            input_mask -> states (B, L, D).
        max_length: number of tokens T; reduced to the number of the text encoder's position embeddings if larger.

    Returns:
        The exported program; ``program.module()`` is called with the inputs in the order listed for ``kind``.

    Raises:
        UserError: ``kind`` is not ``image``, ``text`` or ``multimodal``.
    """
    module, names = KINDS[check_choice(kind, KINDS, "kind")]
    flava: Any = getattr(model, "flava", model)
    parameter, size = flava.logit_scale, flava.image_encoder.patch_embed.img_size
    tokens = min(max_length, len(flava.text_encoder.position_embeddings.weight))
    with torch.device(parameter.device):
        examples = {  # batch size 2: torch.export makes a dimension of size 1 static
            "image": torch.zeros(2, 3, *size),
            "input_ids": torch.zeros(2, tokens, dtype=torch.long),
            "input_mask": torch.ones(2, tokens, dtype=torch.bool),
        }
    shapes = {name: {0: Dim("batch")} for name in names}
    return torch.export.export(module(flava).eval(), tuple(examples[name] for name in names), dynamic_shapes=shapes)
