"""Base class of the processors' config classes, and the sizes of a run's model that its processors must match."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmf_flava.errors import UserError

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


def check_equal(value: int, expected: int | None, key: str, encoder: str) -> None:
    """Raise UserError if the value of a key differs from the key of the same name of the model's encoder."""
    name = key.rpartition(".")[2]
    if expected is not None and value != expected:
        raise UserError(f"{key} is {value}, but {encoder}.{name} is {expected}. Remove {name}, or set both equal.")
