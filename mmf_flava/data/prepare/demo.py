"""The demo's data: real, small, and made of what is installed.

Images are scikit-learn's 1,797 scanned digits (8x8 pixels, 16 grey levels; the test part of UCI's "Optical Recognition
of Handwritten Digits"); captions describe what is measured from each scan; text is CPython's own documentation of its
topics. The layout is the one that large data have too:

    pairs/{train,val,test}/*.tar       webdataset: 8x8 grey ``png`` and ``json`` {"captions": [...], "label": 3}
    images/{train,val}/<digit>/*.png   image folders, with classes.txt for the order of the classes
    text/{train,val}/                  token folders; val is a held-out tenth of the topics
    tokenizer/tokenizer.json           WordPiece trained on the train text and captions
    codebook.safetensors               "centroids": see ``fit_codebook``
    manifest.json                      counts and checksums

Shapes: N images · S image side · p patch side · K codes.
"""

import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, trainers
from tqdm import tqdm

from mmf_flava.data.prepare.captions import DIGITS, Captioner
from mmf_flava.data.prepare.lock import locked
from mmf_flava.data.shards import ShardWriter
from mmf_flava.data.token_files import write_tokens
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, wordpiece
from mmf_flava.errors import UserError

SPLITS = {"train": 1300, "val": 137, "test": 360}
SEED = 0
RECORDS_PER_SHARD = 500


@dataclass(frozen=True)
class DemoOptions:
    """What may be chosen: the codebook must fit the model's image side, patch side and number of codes."""

    image_size: int = 24
    patch_size: int = 6
    codes: int = 64
    vocabulary: int = 2048
    version: int = 1


def build_demo(out: str | Path, options: DemoOptions | None = None, progress: bool = True) -> dict[str, Any]:
    """Builds the demo's data in the folder ``out`` and returns its manifest, with ``"built"``: False if it was there.

    Everything is made in a hidden folder beside ``out`` and renamed at the end: a killed build leaves ``out``
    untouched and is cleared away by the next one. Two builds at once do not collide: the second waits for the first.

    Raises:
        UserError: ``out`` holds something that is not demo data.
    """
    out, options = Path(out).expanduser().resolve(), options or DemoOptions()
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.parent):
        manifest = read_manifest(out)
        if manifest is not None and manifest["options"] == asdict(options):
            return {**manifest, "built": False}
        if manifest is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is not empty and holds no demo data (no manifest.json): choose another folder.")
        temporary = out.with_name(f".{out.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        manifest = _fill(temporary, options, progress)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    return {**manifest, "built": True}


def read_manifest(out: str | Path) -> dict[str, Any] | None:
    """The manifest of finished demo data in ``out``, else None."""
    try:
        manifest = json.loads((Path(out) / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("kind") == "demo" else None


def split_scans() -> dict[str, np.ndarray]:
    """Numbers of the scans of each split: a fixed shuffle, no scan in two splits."""
    order = np.random.default_rng(SEED).permutation(sum(SPLITS.values()))
    ends = np.cumsum(list(SPLITS.values()))
    return dict(zip(SPLITS, np.split(order, ends[:-1]), strict=True))


def fit_codebook(scans_NHW: np.ndarray, image_size: int, patch_size: int, codes: int) -> np.ndarray:
    """k-means over the patches of the images as the codebook view shows them (squashed to the side S, LANCZOS).

    Args:
        scans_NHW: uint8 grey scans.
        image_size, patch_size, codes: S, p and K.

    Returns:
        (K, 3 * p * p) float32 in [0, 1], each centroid channel by channel, then row by row: the layout (3, p, p) of
        ``torch.nn.functional.unfold``. Sorted by brightness, so that the numbers are stable and mean something.
    """
    from sklearn.cluster import KMeans

    side, p = image_size // patch_size, patch_size
    patches = []
    for scan in scans_NHW:
        view = Image.fromarray(scan).convert("RGB").resize((image_size, image_size), Image.Resampling.LANCZOS)
        pixels = np.asarray(view, dtype=np.float32)[: side * p, : side * p] / 255
        patches.append(pixels.reshape(side, p, side, p, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, 3 * p * p))
    centroids = KMeans(codes, n_init=1, max_iter=50, random_state=SEED).fit(np.concatenate(patches)).cluster_centers_
    centroids = np.clip(centroids, 0, 1).astype(np.float32)
    return centroids[np.argsort(centroids.mean(1), kind="stable")]


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """A lower-case WordPiece with at most ``vocabulary`` entries, the same at every call."""
    draft = wordpiece(SPECIAL_TOKENS)
    # The trainer numbers the continuations ##a, ##b, ... in the order of a hash table and breaks ties by number, so
    # its result varies; naming them in advance, as if special, fixes their numbers. ``draft`` is then thrown away.
    letters = sorted({letter for text in texts for letter in draft.normalizer.normalize_str(text)} - set(" \n"))
    fixed = SPECIAL_TOKENS + letters + [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=fixed, show_progress=False)
    draft.train_from_iterator(texts, trainer)
    return wordpiece([token for token, _ in sorted(draft.get_vocab().items(), key=lambda item: item[1])])


def topic_texts() -> dict[str, list[str]]:
    """CPython's documentation topics, {"train": [...], "val": [...]}; every tenth topic by name is held out."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    return {
        "train": [topics[name] for n, name in enumerate(names) if n % 10 != 5],
        "val": [topics[name] for n, name in enumerate(names) if n % 10 == 5],
    }


def _fill(folder: Path, options: DemoOptions, progress: bool) -> dict[str, Any]:
    """Makes everything in ``folder``, the manifest last."""
    from safetensors.numpy import save_file
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels, splits, texts = digits.target, split_scans(), topic_texts()
    captioner = Captioner(scans[splits["train"]])
    captions = captioner.captions(scans, labels, SEED)
    counts: dict[str, Any] = {"pairs": {}, "images": {}, "text": {}}
    with tqdm(total=len(scans) + 4, desc="building the demo's data", unit="item", disable=not progress) as bar:
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
    manifest = {"kind": "demo", "options": asdict(options), "counts": counts, "sha256": _checksums(folder)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _write_pairs(
    folder: Path, numbers: np.ndarray, scans: np.ndarray, labels: np.ndarray, captions: list[list[str]], bar: tqdm
) -> int:
    for start in range(0, len(numbers), RECORDS_PER_SHARD):
        with ShardWriter(folder / f"{start // RECORDS_PER_SHARD:05d}.tar") as shard:
            for number in numbers[start : start + RECORDS_PER_SHARD]:
                text = json.dumps({"captions": captions[number], "label": int(labels[number])})
                shard.write(f"scan-{number:04d}", {"png": png_bytes(scans[number]), "json": text.encode()})
                bar.update()
    return len(numbers)


def _write_images(folder: Path, numbers: np.ndarray, scans: np.ndarray, labels: np.ndarray) -> int:
    for digit in DIGITS:
        (folder / digit).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(DIGITS) + "\n", encoding="utf-8")
    for number in numbers:
        (folder / DIGITS[labels[number]] / f"scan-{number:04d}.png").write_bytes(png_bytes(scans[number]))
    return len(numbers)


def png_bytes(pixels_HW: np.ndarray) -> bytes:
    """A grey uint8 image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def _checksums(folder: Path) -> dict[str, str]:
    """sha256 of what trains or tests a model; index files are left out, as they hold their shard's time of writing."""
    patterns = ("pairs/*/*.tar", "text/*/*", "tokenizer/*", "codebook.safetensors")
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
