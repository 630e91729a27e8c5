"""Image codebooks: one code per patch, the targets of MIM and MMM-image (FLAVA paper, §3.2).

Shapes: B = batch size, h x w = image size of the codebook's input, P = number of patches, N = number of masked
patches, K = number of codes, p x p = patch size in pixels, F = 3 x p x p.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from mmf_flava.config.model import CODEBOOKS, CodebookConfig
from mmf_flava.data.preparation_commands import codebook_command
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.codebook.frozen import Frozen, weights_sha256
from mmf_flava.models.codebook.weights import read_codebook_weights
from mmf_flava.models.last_block import select
from mmf_flava.weights.loading import compare_keys
from mmf_flava.weights.weight_files import read_safetensors

SECTION = "model_config.flava.codebook"
SIZES = ("vocab_size", "hidden_size", "num_groups", "num_blocks_per_group")


class KMeansCodebook(Frozen):
    """A k-means codebook: the code of a patch is the index of the nearest of K centroids.

    A centroid is an image patch: 3 x patch size x patch size values in [0, 1]. Computing the centroids takes seconds.
    """

    centroids: Tensor

    def __init__(self, centroids_KF: Tensor) -> None:
        super().__init__()
        self.register_buffer("centroids", centroids_KF.float())
        self.patch_size = round((centroids_KF.shape[1] / 3) ** 0.5)
        self.sha256 = weights_sha256({"centroids": self.centroids})
        self.freeze()

    @torch.no_grad()
    def forward(self, image_B3hw: Tensor) -> Tensor:
        """Return the (B, number of patches) codes of images with values in [0, 1]."""
        # always in fp32, because rounding of similar distances would change the argmin
        with torch.autocast(image_B3hw.device.type, enabled=False):
            patches = unfold(image_B3hw.float(), self.patch_size, stride=self.patch_size).transpose(1, 2)
            return torch.cdist(patches, self.centroids.expand(len(patches), -1, -1)).argmin(dim=-1)

    def chunk_codes_at(self, image_B3hw: Tensor, mask_BP: Tensor, count: int) -> Tensor:
        return select(self(image_B3hw), mask_BP, count)

    def decode(self, codes_BP: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (B, 3, H, W) images in which each patch is the centroid of its code, for visualisation."""
        patches = self.centroids[codes_BP].transpose(1, 2)
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return fold(patches, size, self.patch_size, stride=self.patch_size)


Codebook = KMeansCodebook | DalleEncoder


def build_codebook(config: CodebookConfig, opened: Mapping[str, Any] | None = None) -> Codebook | None:
    """Return the configured codebook, or None if the run does not need it.

    None is returned for type ``cached``, and for type ``dvae`` if all image datasets of the run have cached codes; the
    dVAE's weights are then not read. Cached codes must have been created with the configured codebook.

    Args:
        opened: dataset and split -> header of its cached codes, or None if it has none; see ``codes.OPENED_CODES``.

    Raises:
        UserError: the weights were not found or do not match ``config``, or cached codes are from another codebook.
    """
    opened = opened or {}
    _check_cached(config, opened, config.sha256)
    uncached = [name for name, header in opened.items() if header is None]
    if config.type == "cached" and 0 < len(uncached) < len(opened):
        dataset, split = uncached[0].split()
        raise UserError(
            f"{SECTION}.type is 'cached', but dataset '{dataset}' has no cached codes for split {split}. Cache "
            f"them with `python -m mmf_flava.cache_codes RECIPE --dataset {dataset} --split {split}`, or set "
            "codebook.type and codebook.path."
        )
    if config.type == "cached" or (config.type == "dvae" and opened and not uncached):
        return None
    codebook = load_codebook(config)
    _check_cached(config, opened, codebook.sha256)
    return codebook


def load_codebook(config: CodebookConfig) -> Codebook:
    """Load the codebook from ``config.path``, even if all datasets have cached codes.

    Raises:
        UserError: the type is unknown, or the weights were not found, or their sizes or hash differ from ``config``.
    """
    if config.type not in CODEBOOKS[1:]:
        raise UserError(f"{SECTION}.type: {config.type!r} is not one of {', '.join(CODEBOOKS[1:])}.")
    codebook = _load_dvae(config) if config.type == "dvae" else _load_kmeans(config)
    if config.sha256 is not None and config.sha256 != codebook.sha256:
        raise UserError(
            f"{SECTION}: the weights in {config.path} have the hash {codebook.sha256}, but sha256 is {config.sha256}. "
            "Correct the path or the hash."
        )
    return codebook


def _check_cached(config: CodebookConfig, opened: Mapping[str, Any], sha256: str | None) -> None:
    for name, header in opened.items():
        if header is None:
            continue
        if sha256 is not None and header["codebook"]["sha256"] != sha256:
            raise UserError(
                f"{SECTION}: the cached codes of {name} were created with another codebook (hash "
                f"{header['codebook']['sha256'][:12]}, expected {sha256[:12]}). Set codebook.path to that codebook, or "
                "cache the codes again under another name."
            )
        if header["codebook"]["vocab_size"] != config.vocab_size:
            raise UserError(
                f"{SECTION}.vocab_size is {config.vocab_size}, but the codebook of the cached codes of {name} has "
                f"{header['codebook']['vocab_size']} entries. Set it to {header['codebook']['vocab_size']}."
            )


def _load_dvae(config: CodebookConfig) -> DalleEncoder:
    sizes = {key: getattr(config, key) for key in SIZES}
    if config.path is None:
        raise UserError(
            f"{SECTION}.path is not set. Set it to the dVAE's weights: the Hugging Face model ID "
            "facebook/flava-image-codebook, a FLAVA checkpoint with a codebook, or encoder.pkl from OpenAI's DALL-E "
            "repository."
        )
    try:
        weights = read_codebook_weights(config.path)
    except UserError as error:
        raise UserError(f"{SECTION}.path: {error}") from None
    with torch.device("meta"):  # skips the initialisation of 54 million weights
        codebook = DalleEncoder(**sizes, dtype=config.dtype, channels_last=config.channels_last)
    compare_keys(codebook.state_dict(), weights).check(
        f"{SECTION}.path: {config.path}", "the codebook", f"Set {', '.join(SIZES)} to the sizes of these weights."
    )
    if invalid := [key for key, value in weights.items() if not (value.is_floating_point() and value.isfinite().all())]:
        raise UserError(
            f"{SECTION}.path: {config.path} has {len(invalid)} tensors that are not finite floats, e.g. {invalid[0]}. "
            "Download or copy the file again from its source."
        )
    codebook.to_empty(device="cpu")
    codebook.load_state_dict(weights)
    codebook.sha256 = weights_sha256(weights)
    return codebook


def _load_kmeans(config: CodebookConfig) -> KMeansCodebook:
    if config.path is None:
        raise UserError(
            f"{SECTION}.path is not set. Set it to the centroids of the k-means codebook. "
            f"Create them with `{codebook_command('codebook.safetensors', config.vocab_size)}`."
        )
    try:
        centroids = _check_centroids(read_safetensors(Path(config.path))[0].get("centroids"))
    except ValueError as error:
        raise UserError(
            f"{SECTION}.path: {config.path} is not a file of centroids ({error}). "
            f"Create one with `{codebook_command(config.path, config.vocab_size)}`."
        ) from None
    if centroids.shape[0] != config.vocab_size:
        raise UserError(
            f"{SECTION}.vocab_size is {config.vocab_size}, but {config.path} has {centroids.shape[0]} codes. "
            f"Set it to {centroids.shape[0]}."
        )
    return KMeansCodebook(centroids)


def _check_centroids(centroids: Tensor | None) -> Tensor:
    """Return the (K, F) centroids. Raise ValueError if they are missing, have another shape or are not finite."""
    if centroids is None:
        raise ValueError("it has no tensor 'centroids'")
    side = round((centroids.shape[1] / 3) ** 0.5) if centroids.ndim == 2 else 0
    if not side or centroids.shape[1] != 3 * side**2 or not centroids.is_floating_point():
        raise ValueError(
            "expected floats of shape codes x (3 x height x width) for square patches, got "
            f"{str(centroids.dtype).removeprefix('torch.')} of shape {tuple(centroids.shape)}"
        )
    if not centroids.float().isfinite().all():
        raise ValueError("some values are NaN or infinite")
    return centroids


def changed_fraction(codebook: Codebook, reference: Codebook, image_B3hw: Tensor) -> float:
    """Return the fraction of codes, in [0, 1], that differ between two codebooks on the same images."""
    return float((codebook(image_B3hw) != reference(image_B3hw)).float().mean())
