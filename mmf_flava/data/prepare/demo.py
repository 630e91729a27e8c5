"""The demo data: small, real data from installed packages.

Images are scikit-learn's 1,797 scanned digits (8x8 pixels, 16 grey levels; the test set of UCI's "Optical Recognition
of Handwritten Digits"); captions describe measurements of each scan; text is CPython's documentation topics
(``pydoc_data``). The layout is the same as for large datasets:

    pairs/{train,val,test}/*.tar       webdataset: 8x8 grey ``png`` and ``json`` {"captions": [...], "label": 3}
    images/{train,val}/<digit>/*.png   image folders; classes.txt lists the classes in order
    text/{train,val}/                  tokenized text; val is a held-out tenth of the topics
    tokenizer/tokenizer.json           WordPiece tokenizer trained on the train text and captions
    codebook.safetensors               "centroids": see ``patch_clustering``
    manifest.json                      counts and checksums
"""

import argparse
import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare import built_folder
from mmf_flava.data.prepare.captions import DIGITS, Captioner
from mmf_flava.data.prepare.patch_clustering import CodebookOptions, fit_codebook
from mmf_flava.data.prepare.tokenizer import train_tokenizer
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.token_files import write_tokens
from mmf_flava.errors import UserError
from mmf_flava.files import atomic

SPLITS = {"train": 1300, "val": 137, "test": 360}
SEED = 0
KIND = "demo"
RECORDS_PER_SHARD = 500


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo data. Image size, patch size and number of codes must match the model."""

    image_size: int = 24
    patch_size: int = 6
    codes: int = 64
    vocabulary: int = 2048
    version: int = 1

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range, or the patch size does not divide the image size."""
        sizes = CodebookOptions(self.image_size, self.patch_size, self.codes)
        patches = SPLITS["train"] * sizes.patches
        if not 1 <= self.codes <= patches:
            raise UserError(f"--codes: must be from 1 to the number of training patches, {patches}, got {self.codes}.")


def prepare_demo(out: str | Path, options: DemoOptions | None = None, progress: bool = True) -> dict[str, Any]:
    """Prepare the demo data in the folder ``out``.

    Returns:
        The manifest; ``"created"`` is False if the data existed already.

    Raises:
        UserError: ``out`` contains something other than demo data.
    """
    out, options = Path(out).expanduser().resolve(), options or DemoOptions()
    return built_folder.build_folder(out, KIND, asdict(options), lambda folder: _write_all(folder, options, progress))


def read_manifest(out: str | Path) -> dict[str, Any] | None:
    """Return the manifest of the demo data in ``out``, or None if there are no complete demo data."""
    return built_folder.read_manifest(out, KIND)


def split_scans() -> dict[str, np.ndarray]:
    """Return the numbers of the scans in each split, shuffled with a fixed seed. The splits are disjoint."""
    order = np.random.default_rng(SEED).permutation(sum(SPLITS.values()))
    ends = np.cumsum(list(SPLITS.values()))
    return dict(zip(SPLITS, np.split(order, ends[:-1]), strict=True))


def topic_texts() -> dict[str, list[str]]:
    """Return CPython's documentation topics, {"train": [...], "val": [...]}. Every tenth topic by name is in val."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    return {
        "train": [topics[name] for n, name in enumerate(names) if n % 10 != 5],
        "val": [topics[name] for n, name in enumerate(names) if n % 10 == 5],
    }


def _write_all(folder: Path, options: DemoOptions, progress: bool) -> dict[str, Any]:
    """Write all demo data to ``folder``, and return their counts and checksums."""
    from safetensors.numpy import save_file
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels, splits, texts = digits.target, split_scans(), topic_texts()
    captioner = Captioner(scans[splits["train"]])
    captions = captioner.captions(scans, labels, SEED)
    counts: dict[str, Any] = {"pairs": {}, "images": {}, "text": {}}
    with tqdm(total=len(scans) + 4, desc="preparing the demo data", unit="item", disable=not progress) as bar:
        for split, numbers in splits.items():
            counts["pairs"][split] = _write_pairs(folder / "pairs" / split, numbers, scans, labels, captions, bar)
        for split in ("train", "val"):
            counts["images"][split] = _write_images(folder / "images" / split, splits[split], scans, labels)
        bar.update()
        bar.set_postfix_str("tokenizer")
        sentences = [caption for number in splits["train"] for caption in captions[number]]
        tokenizer = train_tokenizer(texts["train"] + sentences, options.vocabulary)
        (folder / "tokenizer").mkdir()
        tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
        bar.update()
        bar.set_postfix_str("text")
        for split, documents in texts.items():
            meta = write_tokens(folder / "text" / split, documents, tokenizer)
            counts["text"][split] = {"documents": meta["documents"], "tokens": meta["tokens"]}
        bar.update()
        bar.set_postfix_str("codebook")
        centroids = fit_codebook(scans[splits["train"]], options.image_size, options.patch_size, options.codes)
        save_file({"centroids": centroids}, folder / "codebook.safetensors")
        bar.update()
    return {"counts": counts, "sha256": compute_checksums(folder)}


def _write_pairs(
    folder: Path, numbers: np.ndarray, scans: np.ndarray, labels: np.ndarray, captions: list[list[str]], bar: tqdm
) -> int:
    for start in range(0, len(numbers), RECORDS_PER_SHARD):
        with ShardWriter(folder / f"{start // RECORDS_PER_SHARD:05d}.tar") as shard:
            for number in numbers[start : start + RECORDS_PER_SHARD]:
                text = json.dumps({"captions": captions[number], "label": int(labels[number])})
                shard.write(f"scan-{number:04d}", {"png": png_bytes(scans[number]), "json": text.encode()})
                bar.update()
    pairs = sum(len(captions[number]) for number in numbers)
    # ``dataset_config.pmd.epoch`` requires these counts.
    manifest = {"kind": "demo_pairs", "counts": {"images": len(numbers), "pairs": pairs}}
    atomic.write_json(folder / "manifest.json", manifest)
    return len(numbers)


def _write_images(folder: Path, numbers: np.ndarray, scans: np.ndarray, labels: np.ndarray) -> int:
    for digit in DIGITS:
        (folder / digit).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(DIGITS) + "\n", encoding="utf-8")
    for number in numbers:
        (folder / DIGITS[labels[number]] / f"scan-{number:04d}.png").write_bytes(png_bytes(scans[number]))
    return len(numbers)


def png_bytes(pixels_HW: np.ndarray) -> bytes:
    """Encode a grey uint8 image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def compute_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all data files; index files are excluded because they contain modification times."""
    patterns = ("pairs/*/*.tar", "text/*/*", "tokenizer/*", "codebook.safetensors")
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="create demo data without a download: scanned digits with captions, Python's documentation as text",
        description="Prepares the demo data from scikit-learn's digits and Python's documentation. "
        "Does nothing if the data are already prepared.",
    )
    default = DemoOptions()
    parser.add_argument(
        "--out",
        required=True,
        type=file_path,
        metavar="DIR",
        help="output folder, which must be new or empty, or contain demo data",
    )
    parser.add_argument(
        "--image-size", type=integer(1), default=default.image_size, help="image side in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--patch-size", type=integer(1), default=default.patch_size, help="patch side in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--codes", type=integer(1), default=default.codes, help="number of codebook entries (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_demo)


def run_demo(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    options = DemoOptions(arguments.image_size, arguments.patch_size, arguments.codes)
    manifest = prepare_demo(arguments.out, options, progress=not arguments.quiet)
    if not manifest["created"]:
        print(f"The demo data are already in {arguments.out}; nothing to do.")
        return
    counts = manifest["counts"]
    pairs = ", ".join(f"{count} {split}" for split, count in counts["pairs"].items())
    images = ", ".join(f"{count} {split}" for split, count in counts["images"].items())
    text = ", ".join(f"{count['tokens']} {split}" for split, count in counts["text"].items())
    print(f"Prepared the demo data in {arguments.out} in {time.perf_counter() - started:.1f} s:")
    print(f"  pairs  {pairs}\n  images {images}\n  tokens {text}")
