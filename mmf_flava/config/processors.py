"""Config classes of the processors: ``dataset_config.NAME.processors.PROCESSOR.params``.

Each processor class in ``mmf_flava.data`` has one of these classes as attribute ``CONFIG``. In a run, the defaults of
some keys, such as ``image_size``, are replaced by the values of the run's model (``ModelSizes``). The defaults below
are the values of FLAVA's released models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmf_flava.config.ranges import ranged
from mmf_flava.errors import UserError

# tokenizer and number of tokens of the released weights
TOKENIZER = "bert-base-uncased"
MAX_LENGTH = 77
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_PIXELS = 89_478_485  # Pillow's limit for decompression bombs: 256 MiB as RGB, in every worker
# DALL-E's dVAE has four groups of blocks, which pool three times, and assigns a code to each 8 x 8 pixels
DVAE_GROUPS, DVAE_PATCH = 4, 8


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that its processors must match. A size is None if the model does not have it.

    Attributes:
        where: the model's section, e.g. ``model_config.flava``.
        positions: number of positions of the text encoder, in tokens.
        vocabulary: number of word embeddings of the text encoder.
        codebook: type of the image codebook.
        code_pixels: height and width of the square of pixels to which DALL-E's dVAE assigns one code.
        losses: types of the model's losses.
    """

    where: str
    image_size: int | None = None
    patch_size: int | None = None
    positions: int | None = None
    vocabulary: int | None = None
    codebook: str | None = None
    code_pixels: int = DVAE_PATCH
    losses: tuple[str, ...] = ()

    @classmethod
    def read(cls, section: Any, where: str) -> "ModelSizes":
        """Read the sizes from the config section of a model, which may be any model of MMF. Other keys are ignored."""
        image, text, codebook = (_section(section, name) for name in ("image_encoder", "text_encoder", "codebook"))
        losses = section.get("losses") if isinstance(section, Mapping) and codebook else None
        types = [_section(loss).get("type") for loss in losses] if isinstance(losses, list) else []
        return cls(
            where,
            _size(image, "image_size"),
            _size(image, "patch_size"),
            _size(text, "max_length"),
            _size(text, "vocab_size"),
            codebook.get("type"),
            2 ** ((_size(codebook, "num_groups") or DVAE_GROUPS) - 1),
            tuple(map(str, types)),
        )

    @property
    def code_losses(self) -> tuple[str, ...]:
        """The losses that predict image codes of masked patches."""
        return tuple(loss for loss in self.losses if loss in ("flava_mim", "flava_mmm_image"))

    @property
    def codebook_size(self) -> int | None:
        """Height and width, in pixels, of the codebook input that yields one code per patch of the image encoder."""
        if self.image_size is None or self.patch_size is None:
            return None
        # centroids of a k-means codebook usually are patches of the image encoder's size
        pixels = self.patch_size if self.codebook == "kmeans" else self.code_pixels
        return pixels * (self.image_size // self.patch_size)


def _section(value: Any, key: str | None = None) -> Mapping[str, Any]:
    value = value.get(key) if key is not None and isinstance(value, Mapping) else value
    return value if isinstance(value, Mapping) else {}


def _size(section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


@dataclass
class ProcessorConfig:
    """Base class of the processors' config classes."""

    @classmethod
    def model_defaults(cls, sizes: ModelSizes) -> dict[str, Any]:
        """Return the defaults that depend on the model, such as ``image_size``."""
        return {}

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        """Raise UserError if a value does not fit the model. ``where`` is the section's full name."""


@dataclass
class ImageTransformConfig(ProcessorConfig):
    """``flava_image_transform``: resizes the entire image to a square and normalises it."""

    # height and width of the image encoder's input, in pixels; default: the image_size of the model
    image_size: int = ranged(224, at_least=1)
    # mean and standard deviation of each channel, for pixel values in [0, 1]; null: the values stored with the weights
    # that the run starts from, otherwise CLIP's values
    mean: list[float] | None = ranged(None, at_least=0, at_most=1, length=3)
    std: list[float] | None = ranged(None, above=0, at_most=1, length=3)

    @classmethod
    def model_defaults(cls, sizes: ModelSizes) -> dict[str, Any]:
        return {"image_size": sizes.image_size or cls.image_size}

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        _check_equal(self.image_size, sizes.image_size, f"{where}.image_size", f"{sizes.where}.image_encoder")


@dataclass
class MaskConfig:
    """Block-wise patch mask of MIM and MMM (FLAVA paper, §3.2). The defaults are BEiT's sizes, scaled to the image."""

    # number of masked patches; null: 75 of 196 patches, as in BEiT
    target: int | None = ranged(None, at_least=1)
    # minimum number of patches of a block; null: 16 of 196 patches, as in BEiT
    min_block: int | None = ranged(None, at_least=1)
    # true: always exactly target patches; false: blocks that exceed target are skipped, as in BEiT
    exact: bool = False

    def block_sizes(self, patches: int) -> tuple[int, int]:
        """Return ``target`` and ``min_block`` for images of ``patches`` patches."""
        target = self.target or max(1, round(75 / 196 * patches))
        return target, self.min_block or max(1, min(target, round(16 / 196 * patches)))


@dataclass
class ImageProcessorConfig(ImageTransformConfig):
    """``flava_image``: inputs of the image encoder and codebook, and the patch mask. Training images are cropped."""

    # height and width of a patch, in pixels; default: the patch_size of the model
    patch_size: int = ranged(16, at_least=1)
    # height and width of the codebook's input, in pixels; null: no input. Default: the size with one code per patch, or
    # null if the model has no codebook
    codebook_size: int | None = ranged(112, at_least=1)
    # images with more pixels are bad records; they are not decoded
    max_pixels: int = ranged(MAX_PIXELS, at_least=1)
    # smallest and largest area of a training crop, as a fraction of the image's area
    crop_scale: list[float] = ranged([0.9, 1.0], above=0, at_most=1, length=2, ascending=True)
    # null: no mask
    mask: MaskConfig | None = field(default_factory=MaskConfig)

    @classmethod
    def model_defaults(cls, sizes: ModelSizes) -> dict[str, Any]:
        return {
            **super().model_defaults(sizes),
            "patch_size": sizes.patch_size or cls.patch_size,
            "codebook_size": (sizes.codebook_size or cls.codebook_size) if sizes.codebook else None,
        }

    def check(self, where: str) -> None:
        """Raise UserError if the sizes of image, patches and mask do not fit together."""
        if self.image_size % self.patch_size:
            raise UserError(
                f"{where}.image_size: must be a multiple of patch_size {self.patch_size}, got {self.image_size}."
            )
        if self.mask is None:
            return
        side = self.image_size // self.patch_size
        target, min_block = self.mask.block_sizes(side**2)
        if target > side**2:
            raise UserError(
                f"{where}.mask.target: must be at most {side**2}, the number of patches ({side} x {side}), "
                f"got {target}."
            )
        if min_block > target:
            raise UserError(f"{where}.mask.min_block: must be at most target, {target}, got {min_block}.")

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        super().check_model(sizes, where)
        _check_equal(self.patch_size, sizes.patch_size, f"{where}.patch_size", f"{sizes.where}.image_encoder")
        expected = sizes.codebook_size
        if self.codebook_size is None or expected is None or sizes.codebook != "dvae" or not sizes.code_losses:
            return
        if self.codebook_size != expected:
            pixels, side = sizes.code_pixels, expected // sizes.code_pixels
            raise UserError(
                f"{where}.codebook_size is {self.codebook_size}, but DALL-E's codebook ({sizes.where}.codebook.type: "
                f"dvae) has one code per {pixels} x {pixels} pixels, and the image encoder {side} x {side} patches. "
                f"Set it to {expected}."
            )


@dataclass
class TokensConfig(ProcessorConfig):
    """``flava_tokens``: token ids of a text or text pair, padded to ``max_length``."""

    # folder (absolute, or relative to data_dir or the working directory) or Hugging Face model ID; null: the tokenizer
    # of the weights that the run starts from, otherwise bert-base-uncased
    tokenizer: str | None = None
    # maximum number of tokens, including [CLS] and [SEP]; longer texts are truncated. At most the text encoder's
    # number of positions. null: the number stored with the weights that the run starts from, otherwise 77
    max_length: int | None = ranged(None, at_least=3)

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        if sizes.positions is not None and self.max_length is not None and self.max_length > sizes.positions:
            raise UserError(
                f"{where}.max_length is {self.max_length}, but {sizes.where}.text_encoder.max_length, the number of "
                f"positions of the text encoder, is {sizes.positions}. Set it to at most {sizes.positions}."
            )


REPLACEMENTS = ("bert", "mask")


@dataclass
class TextProcessorConfig(TokensConfig):
    """``flava_text``: token ids of a text, unmasked and masked, for MLM and MMM (FLAVA paper, §3.2)."""

    # pad batches to a multiple of this length, to limit the number of distinct lengths
    pad_to_multiple: int = ranged(1, at_least=1)
    mask_probability: float = ranged(0.15, above=0, below=1)
    # true: mask all tokens of a word together
    whole_word: bool = True
    # bert: 80 % [MASK], 10 % random, 10 % unchanged; mask: all [MASK]
    replace: str = ranged("bert", choices=REPLACEMENTS)


# processor -> config class
PROCESSORS: dict[str, type[ProcessorConfig]] = {
    "flava_image": ImageProcessorConfig,
    "flava_image_transform": ImageTransformConfig,
    "flava_text": TextProcessorConfig,
    "flava_tokens": TokensConfig,
}


def _check_equal(value: int, expected: int | None, key: str, encoder: str) -> None:
    name = key.rpartition(".")[2]
    if expected is not None and value != expected:
        raise UserError(f"{key} is {value}, but {encoder}.{name} is {expected}. Remove {name}, or set both equal.")
