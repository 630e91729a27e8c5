"""MMF processors for pretraining, which create the inputs of the image encoder, image codebook and text encoder.

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

from mmf_flava.compat.dataset_config import read_model_sizes
from mmf_flava.config.paths import resolve_path
from mmf_flava.config.processors import ImageProcessorConfig, TextProcessorConfig, TokensConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.crops import CROP_ASPECT, Box, Crops, sample_crop_box
from mmf_flava.data.initial_processors import InitialProcessors, initial_processors
from mmf_flava.data.masking import block_mask, mask_tokens
from mmf_flava.data.tokenizer import build_continuation_table, compute_vocabulary_hash, find_special_ids
from mmf_flava.errors import UserError


@registry.register_processor("flava_image")
class FlavaImageProcessor(BaseProcessor):
    """Processor that creates the encoder input, the codebook input and the patch mask of an image.

    Both inputs show the same region of the image: a random crop in training (``RandomResizedCrop``), otherwise the
    entire image. The region is resized to a square without preserving the aspect ratio, as in the released code (FLAVA
    paper, section 3.2). The sizes and the crop parameters are the defaults of torchmultimodal.

    Args:
        config: ``params`` of the processor, see ``ImageProcessorConfig``.
        initial: source of the default mean and std; default: the processors stored with the weights that the run starts
            from.
    """

    CONFIG = ImageProcessorConfig

    def __init__(self, config: Any, *args: Any, initial: InitialProcessors | None = None, **kwargs: Any):
        params = parse_section(self.CONFIG, config, "flava_image")
        self.image_size, self.codebook_size, self.mask = params.image_size, params.codebook_size, params.mask
        self.max_pixels = params.max_pixels
        self.crop_scale = (params.crop_scale[0], params.crop_scale[1])
        side = params.image_size // params.patch_size
        self.grid = (side, side)
        self.target, self.min_block = (0, 0) if self.mask is None else self.mask.block_sizes(side**2)
        initial = initial or initial_processors("data_dir" in kwargs)
        self.mean, self.std = initial.statistics(params.image_size, params.mean, params.std)
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        self._scale = torch.from_numpy(1 / (255 * std))[:, None, None]
        self._shift = torch.from_numpy(-mean / std)[:, None, None]
        largest = max(self.image_size, self.codebook_size or 0)
        # JPEGs may be decoded at a reduced size, but with at least this many pixels per side, so that the smallest crop
        # still has enough pixels.
        self.decode_size = math.ceil(largest / math.sqrt(self.crop_scale[0] * CROP_ASPECT[0]))

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the encoder input, the codebook input and the patch mask of an image.

        Args:
            item: {"image": uint8 pixels (height, width, 3) or another input of ``to_pixels``, "rng": numpy Generator,
                "train": bool}, and optionally "crop_rng", a separate generator for the crop, and "codebook_view":
                False, which omits the codebook input (used with cached image codes).

        Returns:
            A dict with the following tensors:
                image: the normalised encoder input, (3, H, W) float.
                image_for_codebook: the codebook input, (3, h, w) float in [0, 1]; may be omitted.
                image_patch_mask: (number of patches,) bool, True = masked; missing if masking is disabled.
        """
        rng, crops = item["rng"], Crops(item["image"])
        box = self._box(crops, item.get("crop_rng", rng)) if item["train"] else None
        pixels = _view(crops, box, self.image_size, Image.Resampling.BICUBIC)
        sample = {"image": _floats(pixels).mul_(self._scale).add_(self._shift)}
        if self.codebook_size is not None and item.get("codebook_view", True):
            sample["image_for_codebook"] = self._codebook_view(crops, self.codebook_size, box)
        if self.mask is not None:
            mask = block_mask(rng, self.grid, self.target, self.min_block, exact=self.mask.exact)
            sample["image_patch_mask"] = torch.from_numpy(mask)
        return sample

    def codebook_views(
        self, image: np.ndarray | Image.Image, generators: Sequence[np.random.Generator], train: bool
    ) -> list[Tensor]:
        """Return one codebook input per generator: float tensors (3, height, width) with values in [0, 1].

        In training, each generator samples the crop of its input. Otherwise, all inputs show the entire image.
        """
        if self.codebook_size is None:
            raise UserError("flava_image: codebook_size is null. Set it, for example to 112, to compute image codes.")
        crops = Crops(image)
        return [
            self._codebook_view(crops, self.codebook_size, self._box(crops, generator) if train else None)
            for generator in generators
        ]

    def pixels(self, image_3HW: Tensor) -> np.ndarray:
        """Convert a normalised encoder input back to (H, W, 3) uint8 pixels, for display."""
        pixels = (image_3HW - self._shift) / self._scale
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def codebook_geometry(self, train: bool) -> dict[str, Any]:
        """Return the parameters that determine how codebook inputs are created from an image and a random generator."""
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


def _check_vocabulary_size(tokens: int) -> None:
    """Raise UserError if a dataset's tokenizer has more tokens than the model has word embeddings."""
    config = registry.get("config", default=None, no_warning=True)
    sizes = read_model_sizes(config) if config is not None else None
    if sizes is not None and sizes.vocabulary is not None and tokens > sizes.vocabulary:
        raise UserError(
            f"{sizes.where}.text_encoder.vocab_size is {sizes.vocabulary}, but the tokenizer has {tokens} tokens. Set "
            f"it to at least {tokens}."
        )


@registry.register_processor("flava_text")
class FlavaTextProcessor(BaseProcessor):
    """Processor that returns the token ids of a text, and a masked copy for MLM (paper section 3.2).

    Args:
        config: ``params`` of the processor, see ``TextProcessorConfig``.
        data_dir: folder of the dataset.
        initial: source of the default tokenizer and max_length; default: the processors stored with the weights that
            the run starts from.
    """

    CONFIG: type[TokensConfig] = TextProcessorConfig

    def __init__(
        self,
        config: Any,
        *args: Any,
        data_dir: str | Path | None = None,
        initial: InitialProcessors | None = None,
        **kwargs: Any,
    ):
        params = parse_section(TextProcessorConfig, config, "flava_text")
        name, initial = params.tokenizer, initial or initial_processors(data_dir is not None)
        if name and data_dir is not None and (local := resolve_path(name, data_dir)).is_dir():
            name = str(local)
        self.tokenizer, self.max_length = initial.load_tokenizer(name, params.max_length)
        self.special = find_special_ids(self.tokenizer)
        self.vocabulary_hash = compute_vocabulary_hash(self.tokenizer)
        self.vocab_size = self.tokenizer.get_vocab_size()
        if data_dir is not None:
            _check_vocabulary_size(self.vocab_size)
        self.pad_to_multiple = params.pad_to_multiple
        self.mask_probability, self.whole_word, self.replace = (
            params.mask_probability,
            params.whole_word,
            params.replace,
        )
        self._begins_word = ~build_continuation_table(self.tokenizer)
        self._maskable = np.ones(self.vocab_size, dtype=bool)
        # [UNK] replaces a real word, so it may be masked, as in BERT.
        self._maskable[[self.special.cls, self.special.sep, self.special.mask, self.special.pad]] = False

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the original and the masked token ids of a text, without padding.

        Args:
            item: {"text": str, or "input_ids": ids without [CLS] and [SEP]; "rng": numpy Generator}.

        Returns:
            (T,) long tensors with MMF's names: input_ids, input_ids_masked, input_mask (all 1), segment_ids (all 0),
            lm_label_ids (-1 = ignored).
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
            "input_mask": torch.ones(len(ids), dtype=torch.long),
            "segment_ids": torch.zeros(len(ids), dtype=torch.long),
            "input_ids_masked": torch.from_numpy(masked),
            "lm_label_ids": torch.from_numpy(labels),
        }

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize texts without masking, for zero-shot classification and retrieval.

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
        # A WordPiece token has at most 100 characters, so characters beyond this limit would be truncated anyway.
        return self.tokenizer.encode(text[: 101 * self.max_length], add_special_tokens=False).ids

    def _add_special_tokens(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        truncated = ids[: self.max_length - 2]
        sequence = np.empty(len(truncated) + 2, dtype=np.int64)
        sequence[0], sequence[1:-1], sequence[-1] = self.special.cls, truncated, self.special.sep
        return sequence
