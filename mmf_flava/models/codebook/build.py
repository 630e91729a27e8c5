"""Image codebooks: one code a patch, the targets of MIM and MMM-image (§3.2).

Shapes: B batch, h and w pixels of the codebook's view, P patches, N masked ones, K codes, p pixels of a patch's side.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmf.common.registry import registry
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import fold, unfold

from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.schema import one_of, positive
from mmf_flava.data.codes import OPENED
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.dalle_encoder import DTYPES, DalleEncoder
from mmf_flava.models.codebook.frozen import Frozen, weights_sha256
from mmf_flava.models.codebook.weights import read_codebook_weights

WHERE = "model_config.flava.codebook"
TYPES = ("cached", "dvae", "kmeans")


class KMeansCodebook(Frozen):
    """The nearest of K centroids, each a patch of 3 x p x p pixels in [0, 1]; small enough to be trained in seconds."""

    centroids: Tensor

    def __init__(self, centroids_KF: Tensor) -> None:
        super().__init__()
        self.register_buffer("centroids", centroids_KF.float())
        self.patch_size = round((centroids_KF.shape[1] / 3) ** 0.5)
        self.sha256 = weights_sha256({"centroids": self.centroids})
        self.freeze()

    @torch.no_grad()
    def forward(self, image_B3hw: Tensor) -> Tensor:
        """(B, P) codes of images with values in [0, 1]."""
        # in fp32 whatever autocast says: a code is the smallest of many close distances
        with torch.autocast(image_B3hw.device.type, enabled=False):
            patches = unfold(image_B3hw.float(), self.patch_size, stride=self.patch_size).transpose(1, 2)
            return torch.cdist(patches, self.centroids.expand(len(patches), -1, -1)).argmin(dim=-1)

    def codes_at(self, image_B3hw: Tensor, mask_BP: Tensor) -> Tensor:
        """(N,) codes where the mask is True."""
        return self(image_B3hw)[mask_BP]

    def decode(self, codes_BP: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, h, w): the picture that the codes stand for, for looking at."""
        patches = self.centroids[codes_BP].transpose(1, 2)
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return fold(patches, size, self.patch_size, stride=self.patch_size)


Codebook = KMeansCodebook | DalleEncoder


def build_codebook(config: CodebookConfig) -> Codebook | None:
    """The codebook that a recipe names; None where no batch of this run needs it.

    That is so for ``cached``, and for ``dvae`` when every image dataset of the run was opened with cached codes: the
    dVAE is then not even read. Where cached codes and a codebook meet, they must be of the same weights.

    Raises:
        UserError: an unknown type, a file that is missing or holds something else, or codes of another codebook.
    """
    one_of(config.type, TYPES, f"{WHERE}.type")
    opened: Mapping[str, Any] = registry.get(OPENED, default={}, no_warning=True)
    _check_cached(config, opened, config.sha256)
    lacking = [name for name, header in opened.items() if header is None]
    if config.type == "cached" and 0 < len(lacking) < len(opened):
        dataset, split = lacking[0].split()
        raise UserError(
            f"{WHERE}.type is 'cached', but dataset '{dataset}' has no cached codes for its split {split}; make them "
            f"with `python -m mmf_flava.cache_codes RECIPE --dataset {dataset} --split {split}`, or name the codebook."
        )
    if config.type == "cached" or (config.type == "dvae" and opened and not lacking):
        return None
    codebook = load_codebook(config)
    _check_cached(config, opened, codebook.sha256)
    return codebook


def load_codebook(config: CodebookConfig) -> Codebook:
    """The codebook that ``type`` and ``path`` name, whatever the run's datasets bring."""
    one_of(config.type, TYPES[1:], f"{WHERE}.type")
    codebook = _dvae(config) if config.type == "dvae" else _kmeans(config)
    if config.sha256 is not None and config.sha256 != codebook.sha256:
        raise UserError(
            f"{WHERE}: the weights in {config.path} have the hash {codebook.sha256}, sha256 says {config.sha256}; "
            "name the file that was meant, or correct the hash."
        )
    return codebook


def _check_cached(config: CodebookConfig, opened: Mapping[str, Any], sha256: str | None) -> None:
    for name, header in opened.items():
        if header is None:
            continue
        if sha256 is not None and header["codebook"]["sha256"] != sha256:
            raise UserError(
                f"The cached codes of {name} were made by another codebook ({header['codebook']['sha256'][:12]}) than "
                f"{WHERE} names ({sha256[:12]}); cache them again under another name, or name that codebook."
            )
        if header["codebook"]["vocab_size"] != config.vocab_size:
            raise UserError(
                f"The cached codes of {name} come from {header['codebook']['vocab_size']} entries, {WHERE}.vocab_size "
                f"says {config.vocab_size}; make them equal."
            )


def _dvae(config: CodebookConfig) -> DalleEncoder:
    one_of(config.dtype, DTYPES, f"{WHERE}.dtype")
    sizes = {key: positive(getattr(config, key), f"{WHERE}.{key}") for key in SIZES}
    if config.path is None:
        raise UserError(
            f"{WHERE}.path must name the dVAE's weights: the hub name facebook/flava-image-codebook, a FLAVA "
            "checkpoint that contains them, or the encoder.pkl that the DALL-E repository of OpenAI links to."
        )
    try:
        weights = read_codebook_weights(config.path)
    except UserError as error:
        raise UserError(f"{WHERE}.path: {error}") from None
    with torch.device("meta"):  # spares 54 million random numbers
        codebook = DalleEncoder(**sizes, dtype=config.dtype, channels_last=config.channels_last)
    expected = {key: tuple(value.shape) for key, value in codebook.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    if given != expected:
        wrong = sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key))
        shown = "; ".join(f"{key} {given.get(key, 'missing')}, not {expected.get(key, 'there')}" for key in wrong[:5])
        raise UserError(f"{WHERE}.path: {config.path} does not fit the sizes of the codebook ({len(wrong)}): {shown}.")
    codebook.to_empty(device="cpu")
    codebook.load_state_dict(weights)
    codebook.sha256 = weights_sha256(weights)
    return codebook


SIZES = ("vocab_size", "hidden_size", "num_groups", "num_blocks_per_group")


def _kmeans(config: CodebookConfig) -> KMeansCodebook:
    if config.path is None:
        raise UserError(f"{WHERE}.path must name the centroids of the kmeans codebook.")
    try:
        centroids = load_file(config.path)["centroids"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{WHERE}.path: {config.path} holds no centroids ({error}); "
            "`python -m mmf_flava.data.prepare demo --out DIR` makes such a file."
        ) from None
    if centroids.shape[0] != config.vocab_size:
        raise UserError(
            f"{config.path} has {centroids.shape[0]} codes, {WHERE}.vocab_size says {config.vocab_size}; "
            "make them equal."
        )
    return KMeansCodebook(centroids)


def changed_share(codebook: Codebook, reference: Codebook, image_B3hw: Tensor) -> float:
    """The share of codes, in [0, 1], in which two codebooks differ on the same images."""
    return float((codebook(image_B3hw) != reference(image_B3hw)).float().mean())
