"""``python -m mmf_flava.data.prepare codebook``: fit a k-means codebook of any size to any images.

Shapes: N = number of patches, S = image side, p = patch side, both in pixels, P = patches per image, K = number of
codes, F = 3 x p x p.
"""

import argparse
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.record import BadRecord, Records, record_boundary
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError
from mmf_flava.files import atomic

MAX_IMAGE_SIZE = 512  # pixels
MAX_BYTES = 2**29  # memory of the patches
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
    images: Iterable[np.ndarray],
    image_size: int,
    patch_size: int,
    codes: int,
    per_image: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Fit k-means to the patches of images, which are resized to S x S pixels with LANCZOS like codebook inputs.

    Args:
        images: uint8 arrays (height, width) or (height, width, 3).
        image_size: height and width of the resized images (S), in pixels.
        patch_size: height and width of a patch (p), in pixels.
        codes: number of centroids (K).
        per_image: number of patches that are sampled from each image, to limit the memory; None: all.
        seed: seed of the sample and of k-means. Equal arguments and numbers of threads give equal centroids.

    Returns:
        (K, 3 * p * p) float32 centroids in [0, 1], in the layout (3, p, p) of ``torch.nn.functional.unfold``, sorted by
        brightness, so that the codes are stable and interpretable.

    Raises:
        UserError: there are fewer than K different patches.
    """
    rng = np.random.default_rng(seed)
    patches = []
    for image in images:
        patches_PF = _cut(image, image_size, patch_size)
        if per_image is not None and per_image < len(patches_PF):
            patches_PF = patches_PF[np.sort(rng.permutation(len(patches_PF))[:per_image])]
        patches.append(patches_PF)
    centroids = np.clip(_cluster(np.concatenate(patches), codes, seed), 0, 1).astype(np.float32)
    return centroids[np.argsort(centroids.mean(1), kind="stable")]


def _cut(image: np.ndarray, image_size: int, patch_size: int) -> np.ndarray:
    """Return the (P, F) float32 patches of one image."""
    side, p = image_size // patch_size, patch_size
    view = Image.fromarray(image).convert("RGB").resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = np.asarray(view, dtype=np.float32)[: side * p, : side * p] / 255
    return pixels.reshape(side, p, side, p, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, 3 * p * p)


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


class _Images:
    """The decodable images of a random sample of records. ``dropped`` counts the bad records by reason."""

    def __init__(self, records: Records, numbers: list[int], progress: bool):
        self.records, self.numbers, self.progress = records, numbers, progress
        self.dropped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[np.ndarray]:
        from mmf_flava.data.image_decoding import decode_image  # imports torch, which takes seconds

        with tqdm(self.numbers, desc="reading images", unit="image", disable=not self.progress) as bar:
            for number in bar:
                try:
                    with record_boundary(f"record {number}"):
                        image = decode_image(self.records.read(number))
                except BadRecord as error:
                    if error.reason not in self.dropped:
                        bar.write(f"{error} (logged once per reason)")
                    self.dropped[error.reason.value] += 1
                    continue
                yield image


def prepare_codebook(src: list[Path], out: Path, options: CodebookOptions, progress: bool = True) -> dict[str, Any]:
    """Fit a codebook to images and write it to the file ``out``.

    Args:
        src: paths of the images, see ``open_records``.

    Returns:
        {"images": number of images, "dropped": number of bad images by reason}.

    Raises:
        UserError: ``out`` exists, ``src`` has no images, or they have fewer patches than there are codes.
    """
    from safetensors.numpy import save_file
    from threadpoolctl import threadpool_limits

    if out.exists():
        raise UserError(f"{out}: the file exists. Choose another --out, or delete the file.")
    records = open_records(list(src))
    rng = np.random.default_rng(options.seed)
    numbers = np.sort(rng.permutation(len(records))[: options.images]).tolist()
    most = max(options.codes, MAX_BYTES // (12 * options.patch_size**2))
    per_image = min(options.patches, max(1, most // len(numbers)))
    images = _Images(records, numbers, progress)
    first = next(iter(_Images(records, numbers, False)), None)
    if first is None:
        raise UserError(f"{', '.join(map(str, src))}: none of {len(numbers)} images can be decoded. Correct --src.")
    with threadpool_limits(1):  # the order in which several threads add floats varies
        centroids = fit_codebook(images, options.image_size, options.patch_size, options.codes, per_image, options.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace_file(out) as temporary:
        save_file({"centroids": centroids}, temporary)
    return {"images": len(numbers) - images.dropped.total(), "dropped": dict(images.dropped)}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "codebook",
        help="fit a k-means codebook, the targets of MIM and MMM, to images",
        description="Fits a k-means codebook to images. The same images, sizes and seed give the same codebook.",
    )
    parser.add_argument(
        "--src",
        required=True,
        nargs="+",
        type=file_path,
        metavar="PATH",
        help="images in any format of docs/own_data.md",
    )
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="FILE", help="new file, e.g. codebook.safetensors"
    )
    parser.add_argument("--image-size", required=True, type=integer(1), help="side of the codebook's input in pixels")
    parser.add_argument("--patch-size", required=True, type=integer(1), help="side of a patch in pixels")
    parser.add_argument("--codes", required=True, type=integer(1), help="number of codes")
    parser.add_argument(
        "--images",
        type=integer(1),
        default=CodebookOptions.images,
        help="maximum number of images, sampled at random (default: %(default)s)",
    )
    parser.add_argument("--seed", type=integer(0), default=0, help="seed (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_codebook)


def run_codebook(arguments: argparse.Namespace) -> None:
    names = ("image_size", "patch_size", "codes", "images", "seed")
    options = CodebookOptions(**{name: getattr(arguments, name) for name in names})
    result = prepare_codebook(arguments.src, arguments.out, options, not arguments.quiet)
    dropped = f" Dropped: {describe_dropped(result)}." if result["dropped"] else ""
    print(
        f"{arguments.out}: {options.codes} codes of {options.patch_size} x {options.patch_size} pixels from "
        f"{result['images']:,} images.{dropped}"
    )
