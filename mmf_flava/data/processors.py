"""MMF processors for pretraining: inputs of the image encoder and the image codebook, clean and masked token ids.

Shapes: H, W = size of the encoder input and h, w = size of the codebook input, in pixels, P = number of patches,
N = number of texts, T = number of tokens.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor
from PIL import Image
from torch import Tensor

from mmf_flava.config.schema import check_choice
from mmf_flava.data.crops import CROP_ASPECT, Box, Crops, sample_crop_box
from mmf_flava.data.masking import REPLACEMENTS, block_mask, mask_tokens
from mmf_flava.data.tokenizer import build_continuation_table, compute_vocabulary_hash, find_special_ids, load_tokenizer
from mmf_flava.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@registry.register_processor("flava_image")
class FlavaImageProcessor(BaseProcessor):
    """Processor that creates the encoder input, the codebook input and the patch mask of an image.

    Both inputs are views of the same region: a random crop in training (``RandomResizedCrop``), otherwise the entire
    image. The region is resized to a square without preserving the aspect ratio, as in the released code (paper section
    3.2; crop and sizes from torchmultimodal).

    Args:
        config: ``params`` of the processor:
            image_size (224), patch_size (16): sizes of the image encoder, in pixels.
            codebook_size (112): height and width of the codebook input, in pixels; null disables it.
            mean, std: three numbers each; default: CLIP's.
            crop_scale ([0.9, 1.0]): range of a training crop's area, as a fraction of the image area.
            mask: {target: 75, min_block: 16, exact: false}, see ``masking.block_mask``; null disables the mask.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        self.image_size = int(config.get("image_size", 224))
        patch_size = int(config.get("patch_size", 16))
        codebook_size = config.get("codebook_size", 112)
        self.codebook_size = None if codebook_size is None else int(codebook_size)
        self.crop_scale = tuple(float(fraction) for fraction in config.get("crop_scale", (0.9, 1.0)))
        self.has_mask = "mask" not in config or config["mask"] is not None
        mask = config.get("mask") or {}
        self.target, self.min_block = int(mask.get("target", 75)), int(mask.get("min_block", 16))
        self.exact = bool(mask.get("exact", False))
        side = self.image_size // patch_size
        self.grid = (side, side)
        mean = np.array(config.get("mean") or CLIP_MEAN, dtype=np.float32)
        std = np.array(config.get("std") or CLIP_STD, dtype=np.float32)
        self._scale = torch.from_numpy(1 / (255 * std))[:, None, None]
        self._shift = torch.from_numpy(-mean / std)[:, None, None]
        self._check(patch_size)
        largest = max(self.image_size, self.codebook_size or 0)
        # JPEGs may be decoded at a reduced size, but not below this side: the smallest crop still has enough pixels.
        self.decode_size = math.ceil(largest / math.sqrt(self.crop_scale[0] * CROP_ASPECT[0]))

    def _check(self, patch_size: int) -> None:
        patches = self.grid[0] * self.grid[1]
        if self.image_size % patch_size or not patches:
            raise UserError(
                f"flava_image: image_size must be a multiple of patch_size {patch_size}, got {self.image_size}."
            )
        if self.has_mask and not 0 < self.target <= patches:
            raise UserError(
                f"flava_image: mask.target must be in 1..{patches}, the number of patches "
                f"({self.grid[0]} x {self.grid[1]}), got {self.target}."
            )
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(
                f"flava_image: crop_scale must be two ascending numbers in (0, 1], got {list(self.crop_scale)}."
            )

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the encoder input, the codebook input and the patch mask of an image.

        Args:
            item: {"image": (h, w, 3) uint8 or another input of ``to_pixels``, "rng": numpy Generator, "train": bool},
                and optionally "crop_rng", a separate generator for the crop, and "codebook_view": False, which omits
                the codebook input (for cached codes).

        Returns:
            image (3, H, W) float, normalised; image_for_codebook (3, h, w) float in [0, 1], unless omitted;
            image_patch_mask (P,) bool, True = masked, unless disabled.
        """
        rng, crops = item["rng"], Crops(item["image"])
        box = self._box(crops, item.get("crop_rng", rng)) if item["train"] else None
        pixels = _view(crops, box, self.image_size, Image.Resampling.BICUBIC)
        sample = {"image": _floats(pixels).mul_(self._scale).add_(self._shift)}
        if self.codebook_size is not None and item.get("codebook_view", True):
            sample["image_for_codebook"] = self._codebook_view(crops, self.codebook_size, box)
        if self.has_mask:
            mask = block_mask(rng, self.grid, self.target, self.min_block, exact=self.exact)
            sample["image_patch_mask"] = torch.from_numpy(mask)
        return sample

    def codebook_views(
        self, image: np.ndarray | Image.Image, generators: Sequence[np.random.Generator], train: bool
    ) -> list[Tensor]:
        """Return one codebook input per generator, (3, h, w) in [0, 1]. Each generator samples one crop."""
        if self.codebook_size is None:
            raise UserError("flava_image: codebook_size is null. Set it, e.g. to 112, to compute codes.")
        crops = Crops(image)
        return [
            self._codebook_view(crops, self.codebook_size, self._box(crops, generator) if train else None)
            for generator in generators
        ]

    def pixels(self, image_3HW: Tensor) -> np.ndarray:
        """Convert an encoder input back to (H, W, 3) uint8 pixels, for display."""
        pixels = (image_3HW - self._shift) / self._scale
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def codebook_geometry(self, train: bool) -> dict[str, Any]:
        """Return the parameters that determine the codebook inputs, except the random generators of the crops."""
        return {
            "codebook_size": self.codebook_size,
            "decode_size": self.decode_size if train else None,
            "boxes": "of whole pixels where an image is shrunk",
            "crop_scale": list(self.crop_scale) if train else None,
        }

    def _box(self, crops: Crops, rng: np.random.Generator) -> Box:
        width, height = crops.size
        return sample_crop_box(rng, width, height, self.crop_scale)

    @staticmethod
    def _codebook_view(crops: Crops, side: int, box: Box | None) -> Tensor:
        return _floats(_view(crops, box, side, Image.Resampling.LANCZOS)).mul_(1 / 255)


def _view(crops: Crops, box: Box | None, side: int, resampling: Image.Resampling) -> Tensor:
    """Crop ``box`` and resize it to a square. If ``box`` is None, resize the entire image."""
    return crops.resize(side, resampling) if box is None else crops.view(box, side, resampling)


def _floats(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.contiguous_format)


@registry.register_processor("flava_text")
class FlavaTextProcessor(BaseProcessor):
    """Processor that converts a text into token ids, clean and with 15 % masked (paper section 3.2).

    Args:
        config: ``params`` of the processor:
            tokenizer: folder (absolute, or relative to ``data_dir`` or the working directory) or Hugging Face model ID.
            max_length (77): maximum number of tokens, including [CLS] and [SEP]; longer texts are truncated.
            pad_to_multiple (1): pad batches to a multiple of this length, to limit the number of distinct lengths.
            mask_probability (0.15), whole_word (true), replace (bert): see ``masking.mask_tokens``.
        data_dir: folder of the dataset.
    """

    def __init__(self, config: Any, *args: Any, data_dir: str | Path | None = None, **kwargs: Any):
        name = config.get("tokenizer")
        if not name:
            raise UserError(
                "flava_text: tokenizer is not set. Set it to a folder or a Hugging Face model ID "
                "such as bert-base-uncased."
            )
        local = None if data_dir is None else Path(data_dir).expanduser() / name
        self.tokenizer = load_tokenizer(local if local is not None and local.is_dir() else name)
        self.special = find_special_ids(self.tokenizer)
        self.vocabulary_hash = compute_vocabulary_hash(self.tokenizer)
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.max_length = int(config.get("max_length", 77))
        self.pad_to_multiple = int(config.get("pad_to_multiple", 1))
        self.mask_probability = float(config.get("mask_probability", 0.15))
        self.whole_word = bool(config.get("whole_word", True))
        self.replace = check_choice(str(config.get("replace", "bert")), REPLACEMENTS, "flava_text: replace")
        if self.max_length < 3 or not 0 < self.mask_probability < 1:
            raise UserError(
                f"flava_text: max_length must be at least 3 and mask_probability between 0 and 1 (exclusive), got "
                f"{self.max_length} and {self.mask_probability}."
            )
        self._begins_word = ~build_continuation_table(self.tokenizer)
        self._maskable = np.ones(self.vocab_size, dtype=bool)
        # [UNK] replaces a real word, so it may be masked, as in BERT.
        self._maskable[[self.special.cls, self.special.sep, self.special.mask, self.special.pad]] = False

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the clean and masked token ids of a text, without padding.

        Args:
            item: {"text": str, or "input_ids": ids without [CLS] and [SEP]; "rng": numpy Generator}.

        Returns:
            input_ids, input_ids_masked (T,) long; input_mask (T,) bool, all True; lm_label_ids (T,) long, -1 = ignored.
        """
        ids = self._add_special_tokens(item["input_ids"] if "input_ids" in item else self._tokenize(item["text"]))
        masked, labels = mask_tokens(
            item["rng"],
            ids,
            self._maskable[ids],
            self._begins_word[ids] if self.whole_word else None,
            self.mask_probability,
            mask_id=self.special.mask,
            vocab_size=self.vocab_size,
            replace=self.replace,
        )
        return {
            "input_ids": torch.from_numpy(ids),
            "input_mask": torch.ones(len(ids), dtype=torch.bool),
            "input_ids_masked": torch.from_numpy(masked),
            "lm_label_ids": torch.from_numpy(labels),
        }

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize texts without masking, for zero-shot and retrieval.

        Returns:
            input_ids (N, T) long and input_mask (N, T) bool. T is the length of the longest text, at most
            ``max_length``.
        """
        sequences = [self._add_special_tokens(self._tokenize(text)) for text in texts]
        longest = max((len(sequence) for sequence in sequences), default=0)
        ids = np.full((len(sequences), longest), self.special.pad, dtype=np.int64)
        mask = np.zeros((len(sequences), longest), dtype=bool)
        for n, sequence in enumerate(sequences):
            ids[n, : len(sequence)], mask[n, : len(sequence)] = sequence, True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _tokenize(self, text: str) -> list[int]:
        # A WordPiece token has at most 100 characters, so that later characters would be truncated anyway.
        return self.tokenizer.encode(text[: 101 * self.max_length], add_special_tokens=False).ids

    def _add_special_tokens(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        truncated = ids[: self.max_length - 2]
        sequence = np.empty(len(truncated) + 2, dtype=np.int64)
        sequence[0], sequence[1:-1], sequence[-1] = self.special.cls, truncated, self.special.sep
        return sequence
