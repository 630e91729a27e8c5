"""MMF processors for finetuning on MMF's own datasets: images and texts without masking.

Shapes: H, W = height and width in pixels, T = ``max_length``, in tokens.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor
from PIL import Image

from mmf_flava.config.processors import ImageTransformConfig, TokensConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.crops import Crops
from mmf_flava.data.processors import FlavaTextProcessor
from mmf_flava.data.run_processors import initial_processors


@registry.register_processor("flava_image_transform")
class FlavaImageTransform(BaseProcessor):
    """Processor that resizes the entire image to a square, as ``flava_image`` does in evaluation.

    Set it as a dataset's ``image_processor``, instead of MMF's default ``torchvision_transforms``.

    Args:
        config: ``params`` of the processor, see ``ImageTransformConfig``.
    """

    CONFIG = ImageTransformConfig

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        params = parse_section(self.CONFIG, config, "flava_image_transform")
        self.image_size = params.image_size
        self.mean, self.std = initial_processors("data_dir" in kwargs).statistics(
            params.image_size, params.mean, params.std
        )
        self._mean, self._std = (torch.tensor(list(values))[:, None, None] for values in (self.mean, self.std))

    def __call__(self, item: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert a PIL image, uint8 pixels (height, width, 3) or the "image" entry of a dict to (3, H, W) float."""
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
        config: ``params`` of the processor, see ``TokensConfig``.
        data_dir: folder of the dataset.
    """

    CONFIG = TokensConfig

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(asdict(parse_section(self.CONFIG, config, "flava_tokens")), *args, **kwargs)

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tokenize [CLS] text [SEP], or [CLS] text [SEP] text_b [SEP] for a pair.

        If a pair is too long, the longer text is truncated first.

        Args:
            item: {"text": str}, or "text_a" as in MMF's own pair datasets, and optionally "text_b".

        Returns:
            text: the unchanged first text; (T,) long tensors: input_ids; input_mask, 0 on padding; segment_ids, 1 on
            text_b and the [SEP] after it.
        """
        text = item["text"] if "text" in item else item["text_a"]
        first = self._tokenize(text)
        segments = np.zeros(self.max_length, dtype=np.int64)
        if item.get("text_b") is None:
            sequence = self._add_special_tokens(first)
        else:
            second = self._tokenize(item["text_b"])
            budget = self.max_length - 3
            first_length = max(budget - len(second), min(len(first), budget - budget // 2))
            first = first[: max(first_length, 0)]
            sequence = self._add_special_tokens([*first, self.special.sep, *second[: budget - len(first)]])
            segments[len(first) + 2 : len(sequence)] = 1
        ids = np.full(self.max_length, self.special.pad, dtype=np.int64)
        ids[: len(sequence)] = sequence
        return {
            "text": text,
            "input_ids": torch.from_numpy(ids),
            "input_mask": (torch.arange(self.max_length) < len(sequence)).long(),
            "segment_ids": torch.from_numpy(segments),
        }

    def get_vocab_size(self) -> int:
        """Return the vocabulary size; called by MMF's builders."""
        return self.vocab_size
