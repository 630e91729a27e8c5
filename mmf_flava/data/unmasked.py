"""MMF processors for finetuning on MMF's own datasets: images and texts without masking.

Shapes: H, W = height and width in pixels, T = ``max_length``, in tokens.
"""

from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor
from PIL import Image

from mmf_flava.config.schema import check_positive
from mmf_flava.data.crops import Crops
from mmf_flava.data.processors import CLIP_MEAN, CLIP_STD, FlavaTextProcessor


@registry.register_processor("flava_image_transform")
class FlavaImageTransform(BaseProcessor):
    """Processor that resizes the entire image to a square, as ``flava_image`` does in evaluation.

    Set it as a dataset's ``image_processor``, instead of MMF's default ``torchvision_transforms``.

    Args:
        config: ``params`` of the processor:
            image_size (224): height and width of the output, in pixels.
            mean, std: three numbers each; default: CLIP's.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        self.image_size = check_positive(config.get("image_size", 224), "flava_image_transform: image_size")
        self._mean = torch.tensor(list(config.get("mean") or CLIP_MEAN))[:, None, None]
        self._std = torch.tensor(list(config.get("std") or CLIP_STD))[:, None, None]

    def __call__(self, item: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert a PIL image or (h, w, 3) uint8 pixels, or the "image" entry of a dict, to (3, H, W) float."""
        if isinstance(item, dict):
            return {"image": self(item["image"])}
        crops = Crops(item)
        pixels = crops.resize(self.image_size, Image.Resampling.BICUBIC)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return pixels.div_(255).sub_(self._mean).div_(self._std)


@registry.register_processor("flava_tokens")
class FlavaTokensProcessor(FlavaTextProcessor):
    """Processor that converts a text or text pair into token ids padded to ``max_length``, for MMF's collator.

    Args:
        config: ``tokenizer`` and ``max_length`` as in ``flava_text``; other keys are ignored.
        data_dir: folder of the dataset.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        # MMF merges the params of the dataset's default processor into config, for example a mask_probability of 0.
        params = {key: config[key] for key in ("tokenizer", "max_length") if key in config}
        super().__init__(params, *args, **kwargs)

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tokenize [CLS] text [SEP], or [CLS] text [SEP] text_b [SEP] for a pair.

        If a pair is too long, the longer text is truncated first.

        Args:
            item: {"text": str}, or "text_a" as in MMF's own pair datasets, and optionally "text_b".

        Returns:
            text: the unchanged first text; input_ids (T,) long; input_mask (T,) bool, False on padding.
        """
        text = item["text"] if "text" in item else item["text_a"]
        first = self._tokenize(text)
        if item.get("text_b") is None:
            sequence = self._add_special_tokens(first)
        else:
            second = self._tokenize(item["text_b"])
            budget = self.max_length - 3
            first_length = max(budget - len(second), min(len(first), budget - budget // 2))
            first = first[: max(first_length, 0)]
            sequence = self._add_special_tokens([*first, self.special.sep, *second[: budget - len(first)]])
        ids = np.full(self.max_length, self.special.pad, dtype=np.int64)
        ids[: len(sequence)] = sequence
        return {
            "text": text,
            "input_ids": torch.from_numpy(ids),
            "input_mask": torch.arange(self.max_length) < len(sequence),
        }

    def get_vocab_size(self) -> int:
        """Return the vocabulary size; called by MMF's builders."""
        return self.vocab_size
