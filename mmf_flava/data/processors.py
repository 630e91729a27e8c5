"""Registered MMF processors: an image into the encoder's and the codebook's view, a text into clean and masked ids.

Shapes: H, W and h, w pixels of the two views · P patches · N texts · T tokens.
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

from mmf_flava.config.schema import one_of
from mmf_flava.data.crops import CROP_ASPECT, Box, Crops, random_crop
from mmf_flava.data.masking import REPLACEMENTS, block_mask, mask_tokens
from mmf_flava.data.tokenizer import continuation_table, load_tokenizer, special_ids, vocabulary_hash
from mmf_flava.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@registry.register_processor("flava_image")
class FlavaImageProcessor(BaseProcessor):
    """A picture -> the view of the image encoder, the view of the codebook, and the mask of patches.

    Both views show the same box of the picture: in training a random crop (``RandomResizedCrop``), else all of it,
    squashed to a square, as in the released code (paper section 3.2; crop and sizes from torchmultimodal).

    Args:
        config: ``params`` of the recipe:
            image_size (224), patch_size (16): of the encoder.
            codebook_size (112): side of the codebook's view; null leaves it out.
            mean, std: three numbers each, CLIP's by default.
            crop_scale ([0.9, 1.0]): share of the area that a training crop shows.
            mask: {target: 75, min_block: 16, exact: false}, see ``masking.block_mask``; null leaves it out.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        self.image_size = int(config.get("image_size", 224))
        patch_size = int(config.get("patch_size", 16))
        codebook_size = config.get("codebook_size", 112)
        self.codebook_size = None if codebook_size is None else int(codebook_size)
        self.crop_scale = tuple(float(share) for share in config.get("crop_scale", (0.9, 1.0)))
        self.masks = "mask" not in config or config["mask"] is not None
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
        # Side to which a JPEG may be decoded at reduced size: the smallest crop still has enough pixels.
        self.decode_size = math.ceil(largest / math.sqrt(self.crop_scale[0] * CROP_ASPECT[0]))

    def _check(self, patch_size: int) -> None:
        patches = self.grid[0] * self.grid[1]
        if self.image_size % patch_size or not patches:
            raise UserError(f"flava_image: image_size {self.image_size} is no multiple of patch_size {patch_size}.")
        if self.masks and not 0 < self.target <= patches:
            raise UserError(
                f"flava_image: mask.target is {self.target}, but the image has {patches} patches "
                f"({self.grid[0]} x {self.grid[1]}); choose a number in 1..{patches}."
            )
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"flava_image: crop_scale must be two shares in (0, 1], not {list(self.crop_scale)}.")

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """{"image": (h, w, 3) uint8 or a PIL image, "rng": numpy Generator, "train": bool} -> the views and the mask.

        ``item`` may also hold "crop_rng", a generator of its own for the crop, and "codebook_view": False, which
        leaves out the view of the codebook (codes are cached).

        Returns:
            image (3, H, W) float, normalised; image_for_codebook (3, h, w) float in [0, 1], unless left out;
            image_patch_mask (P,) bool, True = masked, unless left out.
        """
        rng, crops = item["rng"], Crops(item["image"])
        box = self._box(crops, item.get("crop_rng", rng), item["train"])
        pixels = crops.view(box, self.image_size, Image.Resampling.BICUBIC)
        sample = {"image": _floats(pixels).mul_(self._scale).add_(self._shift)}
        if self.codebook_size is not None and item.get("codebook_view", True):
            sample["image_for_codebook"] = self._codebook_view(crops, self.codebook_size, box)
        if self.masks:
            mask = block_mask(rng, self.grid, self.target, self.min_block, exact=self.exact)
            sample["image_patch_mask"] = torch.from_numpy(mask)
        return sample

    def codebook_views(
        self, picture: np.ndarray | Image.Image, generators: Sequence[np.random.Generator], train: bool
    ) -> list[Tensor]:
        """The views of the codebook alone, (3, h, w) in [0, 1]: one for each generator, which draws its crop."""
        if self.codebook_size is None:
            raise UserError("flava_image: codebook_size is null, so there is no view to make codes of.")
        crops = Crops(picture)
        return [
            self._codebook_view(crops, self.codebook_size, self._box(crops, generator, train))
            for generator in generators
        ]

    def pixels(self, image_3HW: Tensor) -> np.ndarray:
        """(H, W, 3) uint8: the encoder's view before it was normalised, to be looked at."""
        pixels = (image_3HW - self._shift) / self._scale
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def codebook_geometry(self, train: bool) -> dict[str, Any]:
        """What decides the pixels that the codebook sees of a picture, beside the generator of the crop."""
        return {
            "codebook_size": self.codebook_size,
            "decode_size": self.decode_size,
            "boxes": "of whole pixels where an image is shrunk",
            "crop_scale": list(self.crop_scale) if train else None,
        }

    def _box(self, crops: Crops, rng: np.random.Generator, train: bool) -> Box:
        width, height = crops.size
        return random_crop(rng, width, height, self.crop_scale) if train else (0, 0, width, height)

    @staticmethod
    def _codebook_view(crops: Crops, side: int, box: Box) -> Tensor:
        return _floats(crops.view(box, side, Image.Resampling.LANCZOS)).mul_(1 / 255)


def _floats(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.contiguous_format)


@registry.register_processor("flava_text")
class FlavaTextProcessor(BaseProcessor):
    """A text -> ids between [CLS] and [SEP], and the same with 15 % of the tokens masked (paper section 3.2).

    Args:
        config: ``params`` of the recipe:
            tokenizer: folder (absolute, or below ``data_dir``, or below the working directory) or hub name.
            max_length (77): tokens with [CLS] and [SEP]; longer texts are cut.
            pad_to_multiple (1): batches are padded to the next multiple of this, for few different lengths.
            mask_probability (0.15), whole_word (true), replace (bert): see ``masking.mask_tokens``.
        data_dir: of the dataset.
    """

    def __init__(self, config: Any, *args: Any, data_dir: str | Path | None = None, **kwargs: Any):
        name = config.get("tokenizer")
        if not name:
            raise UserError("flava_text: tokenizer is not set; give a folder or a hub name such as bert-base-uncased.")
        local = None if data_dir is None else Path(data_dir).expanduser() / name
        self.tokenizer = load_tokenizer(local if local is not None and local.is_dir() else name)
        self.special = special_ids(self.tokenizer)
        self.vocabulary_hash = vocabulary_hash(self.tokenizer)
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.max_length = int(config.get("max_length", 77))
        self.pad_to_multiple = int(config.get("pad_to_multiple", 1))
        self.mask_probability = float(config.get("mask_probability", 0.15))
        self.whole_word = bool(config.get("whole_word", True))
        self.replace = one_of(str(config.get("replace", "bert")), REPLACEMENTS, "flava_text: replace")
        if self.max_length < 3 or not 0 < self.mask_probability < 1:
            raise UserError(
                f"flava_text: max_length {self.max_length} must be at least 3 and mask_probability "
                f"{self.mask_probability} between 0 and 1."
            )
        self._begins_word = ~continuation_table(self.tokenizer)
        self._maskable = np.ones(self.vocab_size, dtype=bool)
        # [UNK] stands for a real word and may be masked, as in BERT
        self._maskable[[self.special.cls, self.special.sep, self.special.mask, self.special.pad]] = False

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """{"text": str, or "input_ids": ids without [CLS] and [SEP]; "rng": numpy Generator} -> ids, unpadded.

        Returns:
            input_ids, input_ids_masked (T,) long; input_mask (T,) bool, all True; lm_label_ids (T,) long, -1 ignored.
        """
        ids = self._with_ends(item["input_ids"] if "input_ids" in item else self._ids(item["text"]))
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
        """Texts as they are, for zero-shot and retrieval: input_ids (N, T) long, input_mask (N, T) bool.

        T is the longest of these texts, at most ``max_length``.
        """
        rows = [self._with_ends(self._ids(text)) for text in texts]
        longest = max((len(row) for row in rows), default=0)
        ids = np.full((len(rows), longest), self.special.pad, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=bool)
        for n, row in enumerate(rows):
            ids[n, : len(row)], mask[n, : len(row)] = row, True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _ids(self, text: str) -> list[int]:
        # WordPiece takes words of up to 100 characters; what lies beyond could not come into the sample
        return self.tokenizer.encode(text[: 101 * self.max_length], add_special_tokens=False).ids

    def _with_ends(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        kept = ids[: self.max_length - 2]
        row = np.empty(len(kept) + 2, dtype=np.int64)
        row[0], row[1:-1], row[-1] = self.special.cls, kept, self.special.sep
        return row
