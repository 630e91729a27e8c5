"""k-means codebooks of image patches.

Shapes: N = number of patches, S = image side, p = patch side, both in pixels, P = patches per image, K = number of
codes, F = 3 x p x p.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmf_flava.errors import UserError

MAX_IMAGE_SIZE = 512  # pixels
MAX_EXACT = 2**22  # distances per iteration, patches x codes, up to which k-means uses all patches in every iteration
BATCH = 4096  # patches, at least, of an iteration of mini-batch k-means


@dataclass(frozen=True)
class CodebookOptions:
    """Sizes of a codebook, which must match the model, and the sample of images that it is fitted to.

    Attributes:
        images: maximum number of images, sampled at random.
        seed: seed of the samples and of k-means.
    """

    image_size: int
    patch_size: int
    codes: int
    images: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range, or the patch size does not divide the image size."""
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise UserError(f"--image-size: must be from 1 to {MAX_IMAGE_SIZE}, got {self.image_size}.")
        if self.patch_size < 1 or self.image_size % self.patch_size:
            raise UserError(f"--patch-size: {self.patch_size} does not divide the image size {self.image_size}.")

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


def fit_codebook(
    images: Iterable[np.ndarray], image_size: int, patch_size: int, codes: int, seed: int = 0
) -> np.ndarray:
    """Fit k-means to the patches of images; see ``cut_patches`` and ``fit_patches``.

    Args:
        images: uint8 arrays (height, width) or (height, width, 3).
    """
    patches_NF = np.concatenate([cut_patches(image, image_size, patch_size) for image in images])
    return fit_patches(patches_NF, codes, seed)


def cut_patches(image: np.ndarray, image_size: int, patch_size: int) -> np.ndarray:
    """Return the (P, F) float32 patches of an image, which is resized with LANCZOS like codebook inputs.

    Args:
        image: uint8 array (height, width) or (height, width, 3).
        image_size: height and width of the resized image (S), in pixels.
        patch_size: height and width of a patch (p), in pixels.
    """
    side, p = image_size // patch_size, patch_size
    view = Image.fromarray(image).convert("RGB").resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = np.asarray(view, dtype=np.float32)[: side * p, : side * p] / 255
    return pixels.reshape(side, p, side, p, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, 3 * p * p)


def fit_patches(patches_NF: np.ndarray, codes: int, seed: int = 0) -> np.ndarray:
    """Fit k-means to patches.

    Args:
        codes: number of centroids (K).
        seed: seed of k-means. Equal arguments and numbers of threads give equal centroids.

    Returns:
        (K, 3 * p * p) float32 centroids in [0, 1], in the layout (3, p, p) of ``torch.nn.functional.unfold``, sorted by
        brightness, so that the codes are stable and interpretable.

    Raises:
        UserError: there are fewer than K different patches.
    """
    centroids = np.clip(_cluster(patches_NF, codes, seed), 0, 1).astype(np.float32)
    return centroids[np.argsort(centroids.mean(1), kind="stable")]


def _cluster(patches_NF: np.ndarray, codes: int, seed: int) -> np.ndarray:
    """Return (K, F) centroids of k-means, or of mini-batch k-means if there are many patches and codes."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    count = len(patches_NF)
    if count < codes:
        raise UserError(f"--codes: must be at most the number of patches, {count}, got {codes}.")
    exact = count * codes <= MAX_EXACT
    clustering = (
        KMeans(codes, n_init=1, max_iter=50, random_state=seed)
        if exact
        else MiniBatchKMeans(codes, n_init=1, max_iter=20, random_state=seed, batch_size=max(BATCH, 4 * codes))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # fewer different patches than codes
        try:
            centroids: np.ndarray = clustering.fit(patches_NF).cluster_centers_
        except ConvergenceWarning:
            different = len(np.unique(patches_NF, axis=0))
            raise UserError(
                f"--codes: must be at most the number of different patches, {different}, got {codes}."
            ) from None
    return centroids
