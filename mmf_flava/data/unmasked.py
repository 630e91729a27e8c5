"""Registered MMF processors for finetuning on MMF's own datasets: pictures and texts as they are, nothing masked.

Shapes: H, W pixels · T tokens, ``max_length``.
"""

from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor
from PIL import Image

from mmf_flava.config.schema import positive
from mmf_flava.data.crops import Crops
from mmf_flava.data.processors import CLIP_MEAN, CLIP_STD, FlavaTextProcessor


@registry.register_processor("flava_image_transform")
class FlavaImageTransform(BaseProcessor):
    """A picture -> what the image encoder sees: all of it, squashed to a square, as evaluations of ``flava_image`` do.

    For MMF's ``image_processor``, where ``torchvision_transforms`` stands by default.

    Args:
        config: ``params`` of the recipe:
            image_size (224): of the encoder.
            mean, std: three numbers each, CLIP's by default.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        self.image_size = positive(config.get("image_size", 224), "flava_image_transform: image_size")
        self._mean = torch.tensor(list(config.get("mean") or CLIP_MEAN))[:, None, None]
        self._std = torch.tensor(list(config.get("std") or CLIP_STD))[:, None, None]

    def __call__(self, item: Any, *args: Any, **kwargs: Any) -> Any:
        """A PIL image or (h, w, 3) uint8 -> (3, H, W) float; {"image": one of these} -> {"image": (3, H, W)}."""
        if isinstance(item, dict):
            return {"image": self(item["image"])}
        crops = Crops(item)
        pixels = crops.view((0, 0, *crops.size), self.image_size, Image.Resampling.BICUBIC)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return pixels.div_(255).sub_(self._mean).div_(self._std)


@registry.register_processor("flava_tokens")
class FlavaTokensProcessor(FlavaTextProcessor):
    """A text, or two -> ids between [CLS] and [SEP], padded, for MMF's collator takes only texts of one length.

    Args:
        config: ``tokenizer`` and ``max_length`` as in ``flava_text``.
        data_dir: of the dataset.
    """

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """{"text": str} -> [CLS] text [SEP]; with "text_b": str -> [CLS] text [SEP] text_b [SEP].

        The first text may be called text_a, as MMF's own datasets of pairs call it. Too long a pair loses the end of
        the longer one, token by token.

        Returns:
            text: as given; input_ids (T,) long; input_mask (T,) bool, False on padding.
        """
        text = item["text"] if "text" in item else item["text_a"]
        first = self._ids(text)
        if item.get("text_b") is None:
            row = self._with_ends(first)
        else:
            second = self._ids(item["text_b"])
            room = self.max_length - 3
            kept = max(room - len(second), min(len(first), room - room // 2))
            first = first[: max(kept, 0)]
            row = self._with_ends([*first, self.special.sep, *second[: room - len(first)]])
        ids = np.full(self.max_length, self.special.pad, dtype=np.int64)
        ids[: len(row)] = row
        return {
            "text": text,
            "input_ids": torch.from_numpy(ids),
            "input_mask": torch.arange(self.max_length) < len(row),
        }

    def get_vocab_size(self) -> int:
        """Word pieces that the tokenizer knows; MMF's builders ask for it."""
        return self.vocab_size
