"""Layer-wise learning rate decay, as in BEiT's finetuning: lower layers have lower learning rates.

The depth of a layer is its number of layers below the classifier. The final LayerNorm has depth 0, the last block 1,
the first of L blocks L, and the embeddings L + 1. If the multimodal encoder is trained, its embeddings are [CLS_M] and
the projections of its inputs, and the image and the text encoder are below them: their final LayerNorm has the depth of
these embeddings.
"""

from collections.abc import Mapping

MULTIMODAL = "multimodal_encoder"


def layer_depth(name: str, num_blocks: Mapping[str, int]) -> int:
    """Return the depth of a parameter; 0 if it is not in an encoder.

    Args:
        name: name of the parameter, e.g. ``flava.image_encoder.blocks.0.norm1.weight``.
        num_blocks: encoder -> number of its blocks, without frozen encoders.
    """
    encoder, _, layer = name.removeprefix("flava.").partition(".")
    if encoder not in num_blocks:
        return 0
    above = 0 if encoder == MULTIMODAL or MULTIMODAL not in num_blocks else num_blocks[MULTIMODAL] + 1
    kind, _, rest = layer.partition(".")
    if kind == "blocks":
        return above + num_blocks[encoder] - int(rest.partition(".")[0])
    return above + (0 if kind == "norm" else num_blocks[encoder] + 1)
