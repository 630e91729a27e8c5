"""Config classes of the processors: ``dataset_config.NAME.processors.PROCESSOR.params``.

Each processor class in ``mmf_flava.data`` has one of these classes as attribute ``CONFIG``. In a run, the defaults of
some keys, such as ``image_size``, are replaced by the values of the run's model (``ModelSizes``). The defaults below
are the values of FLAVA's released models.
"""

from dataclasses import dataclass, field
from typing import Any

from mmf_flava.config.processor_base import ModelSizes, ProcessorConfig, check_equal
from mmf_flava.config.ranges import ranged
from mmf_flava.errors import UserError

Statistics = tuple[float, float, float]  # one value per channel

# tokenizer and number of tokens of the released weights
TOKENIZER = "bert-base-uncased"
MAX_LENGTH = 77
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP = (CLIP_MEAN, CLIP_STD)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std
MAX_PIXELS = 89_478_485  # Pillow's limit for decompression bombs: 256 MiB as RGB, in every worker


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
        check_equal(self.image_size, sizes.image_size, f"{where}.image_size", f"{sizes.where}.image_encoder")


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
        check_equal(self.patch_size, sizes.patch_size, f"{where}.patch_size", f"{sizes.where}.image_encoder")
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


NORMALISATIONS = {"imagenet": IMAGENET, "flava": CLIP}


@dataclass
class MulticropConfig(ProcessorConfig):
    """``flava_multicrop``: two global and several local crops of an image, for DINO (Caron et al., 2021, section 3.1).

    The defaults are the values published for ViT-B/16. Other augmentations are fixed, see ``data.multicrop``.
    """

    # height and width of a global crop, in pixels; default: the image_size of the model
    global_size: int = ranged(224, at_least=1)
    # height and width of a local crop, in pixels, a multiple of the model's patch_size; default: the multiple that is
    # closest to 96/224 of the model's image_size
    local_size: int = ranged(96, at_least=1)
    # number of local crops; 0: none
    num_local: int = ranged(10, at_least=0)
    # smallest and largest area of a crop, as a fraction of the image's area
    global_scale: list[float] = ranged([0.25, 1.0], above=0, at_most=1, length=2, ascending=True)
    local_scale: list[float] = ranged([0.05, 0.25], above=0, at_most=1, length=2, ascending=True)
    # smallest and largest standard deviation of the Gaussian blur, in pixels of a crop
    blur_radius: list[float] = ranged([0.1, 2.0], at_least=0, length=2, ascending=True)
    # mean and standard deviation of ImageNet or of FLAVA (CLIP's); null: mean and std, or if they are null the values
    # stored with the weights that the run starts from, otherwise ImageNet's. They also are the defaults of mean and std
    # of the run's other datasets
    normalisation: str | None = ranged(None, choices=tuple(NORMALISATIONS))
    # mean and standard deviation of each channel, for pixel values in [0, 1]; null: see normalisation
    mean: list[float] | None = ranged(None, at_least=0, at_most=1, length=3)
    std: list[float] | None = ranged(None, above=0, at_most=1, length=3)
    # images with more pixels are bad records; they are not decoded
    max_pixels: int = ranged(MAX_PIXELS, at_least=1)

    @classmethod
    def model_defaults(cls, sizes: ModelSizes) -> dict[str, Any]:
        side, patch = sizes.image_size or cls.global_size, sizes.patch_size or 16
        patches = max(1, round(cls.local_size / cls.global_size * side / patch))
        return {"global_size": side, "local_size": patch * patches}

    def check(self, where: str) -> None:
        """Raise UserError if mean and std are given twice, or one without the other."""
        given = [key for key in ("mean", "std") if getattr(self, key) is not None]
        if given and self.normalisation is not None:
            raise UserError(
                f"{where}: normalisation and {' and '.join(given)} exclude each other. Remove normalisation to use own "
                "values."
            )
        if len(given) == 1:
            raise UserError(f"{where}.{given[0]}: is given without {'std' if given == ['mean'] else 'mean'}. Set both.")

    def check_model(self, sizes: ModelSizes, where: str) -> None:
        encoder = f"{sizes.where}.image_encoder"
        if sizes.image_size not in (None, self.global_size):
            raise UserError(
                f"{where}.global_size is {self.global_size}, but {encoder}.image_size is {sizes.image_size}. Remove "
                "global_size, or set both equal."
            )
        if self.num_local and sizes.patch_size is not None and self.local_size % sizes.patch_size:
            nearest = max(1, round(self.local_size / sizes.patch_size)) * sizes.patch_size
            raise UserError(
                f"{where}.local_size: must be a multiple of {encoder}.patch_size {sizes.patch_size}, got "
                f"{self.local_size}. Set it to {nearest}, for example."
            )

    def statistics(self) -> tuple[Statistics | None, Statistics | None]:
        """Return the mean and standard deviation that the params set; None if they set none."""
        if self.normalisation is not None:
            return NORMALISATIONS[self.normalisation]
        if self.mean is None or self.std is None:
            return None, None
        (a, b, c), (d, e, f) = self.mean, self.std
        return (a, b, c), (d, e, f)


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
    "flava_multicrop": MulticropConfig,
    "flava_text": TextProcessorConfig,
    "flava_tokens": TokensConfig,
}
