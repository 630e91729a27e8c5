"""``python -m mmf_flava.data.prepare photos``: CIFAR-10's photographs with captions, and text, for demo_photos.yaml.

Captions are the class names in four templates. The layout is the same as for large datasets:

    pairs/{train,val,test}/*.tar   webdataset: the images as published, and ``json`` {"captions": [...], "label": 3}
    text/{train,val}/              tokenized text; val is a held-out tenth of the documents
    tokenizer/tokenizer.json       WordPiece tokenizer trained on the train text and captions
    codebook.safetensors           k-means codebook of the train images
    manifest.json                  options, counts and checksums

CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.annotations import read_label
from mmf_flava.data.names import is_hidden
from mmf_flava.data.preparation_commands import build_command
from mmf_flava.data.prepare import built_folder
from mmf_flava.data.prepare.codebook import prepare_codebook
from mmf_flava.data.prepare.demo import compute_checksums, topic_texts
from mmf_flava.data.prepare.documents import documents
from mmf_flava.data.prepare.patch_clustering import CodebookOptions
from mmf_flava.data.prepare.text_files import text_files
from mmf_flava.data.prepare.tokenizer import MIN_VOCABULARY, train_tokenizer
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Records
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.token_files import write_tokens
from mmf_flava.errors import UserError

KIND = "photos"
SOURCE = "CIFAR10"  # torchvision's name
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEMPLATES = ("a photo of a {}", "a small picture of a {}", "a blurry photo of one {}", "this is a {}")
VAL_SHARE = 25  # one of 25 training images is held out
VAL_DOCUMENTS = 10  # one of ten documents is held out
RECORDS_PER_SHARD = 2000
SEED = 0


@dataclass(frozen=True)
class PhotoOptions:
    """Options of the data. Image size, patch size, number of codes and vocabulary must match the model.

    Attributes:
        src: folder with the photographs: torchvision's cifar-10-batches-py, or ``train`` and ``test`` in any format of
            records with labels; None: downloaded with torchvision.
        text: file or folder of texts; None: CPython's documentation topics.
    """

    src: str | None = None
    text: str | None = None
    image_size: int = 32
    patch_size: int = 8
    codes: int = 128
    vocabulary: int = 2048
    version: int = 1

    def __post_init__(self) -> None:
        """Raise UserError if a size is out of range, or the patch size does not divide the image size."""
        CodebookOptions(self.image_size, self.patch_size, self.codes)


def prepare_photos(out: str | Path, options: PhotoOptions | None = None, progress: bool = True) -> dict[str, Any]:
    """Prepare the photographs, captions and text in the folder ``out``.

    Without ``src``, torchvision downloads CIFAR-10 to the folder ``cifar10`` next to ``out``, once.

    Returns:
        The manifest; ``"created"`` is False if the data existed already.

    Raises:
        UserError: ``out`` contains something else, or the photographs or the text cannot be read.
    """
    out, options = Path(out).expanduser().resolve(), options or PhotoOptions()
    return built_folder.build_folder(
        out, KIND, asdict(options), lambda folder: _write_all(folder, out, options, progress)
    )


def open_photos(src: str | None, out: Path) -> dict[str, Records]:
    """Open the published splits, {"train": ..., "test": ...}; see ``PhotoOptions.src``.

    Args:
        out: output folder. If ``src`` is None, torchvision downloads to the folder cifar10 next to it.

    Raises:
        UserError: the photographs cannot be downloaded or found.
    """
    from mmf_flava.data.image_sets.catalogue import download_image_set, open_image_set  # imports torch

    root = out.parent / "cifar10" if src is None else Path(src)
    if src is None:
        try:
            download_image_set(SOURCE, root, "train")
        except UserError as error:
            command = build_command(f"{KIND} --src DIR", out)
            raise UserError(f"{error} To use a copy, run `{command}` first.") from error
    root = root.parent if root.name == "cifar-10-batches-py" else root
    if src is None or (root / "cifar-10-batches-py").is_dir():
        return {split: open_image_set(SOURCE, root, split) for split in ("train", "test")}
    return {split: open_records(_find_split(root, split)) for split in ("train", "test")}


def _find_split(root: Path, split: str) -> Path:
    found = sorted(path for path in root.glob(f"{split}*") if not is_hidden(path.name)) if root.is_dir() else []
    if not found:
        raise UserError(
            f"--src: {root} has neither cifar-10-batches-py nor a file or folder {split}. Set it to a folder with "
            "train and test, or omit it to download CIFAR-10."
        )
    return found[0]


def read_texts(text: str | None) -> dict[str, list[str]]:
    """Return the training and the held-out documents, {"train": [...], "val": [...]}.

    Raises:
        UserError: there are fewer than ten documents.
    """
    if text is None:
        return topic_texts()
    texts = list(documents(text_files(Path(text))))
    if len(texts) < VAL_DOCUMENTS:
        raise UserError(
            f"--text: {text} has {len(texts)} documents, but at least {VAL_DOCUMENTS} are needed, one of which is held "
            "out. Separate the paragraphs by empty lines, or add text."
        )
    held_out = [n % VAL_DOCUMENTS == VAL_DOCUMENTS // 2 for n in range(len(texts))]
    return {
        "train": [text for text, held in zip(texts, held_out, strict=True) if not held],
        "val": [text for text, held in zip(texts, held_out, strict=True) if held],
    }


def _write_all(folder: Path, out: Path, options: PhotoOptions, progress: bool) -> dict[str, Any]:
    texts, photos = read_texts(options.text), open_photos(options.src, out)
    rng = np.random.default_rng(SEED)
    train, test = (rng.permutation(len(photos[split])) for split in ("train", "test"))
    held_out = len(train) // VAL_SHARE
    splits = {
        "train": (photos["train"], train[held_out:]),
        "val": (photos["train"], train[:held_out]),
        "test": (photos["test"], test),
    }
    counts: dict[str, Any] = {"pairs": {}, "text": {}}
    with tqdm(total=len(train) + len(test), desc="preparing photographs", unit="image", disable=not progress) as bar:
        for split, (records, numbers) in splits.items():
            counts["pairs"][split] = _write_pairs(folder / "pairs" / split, records, numbers.tolist(), bar)
    captions = [template.format(name) for name in CLASSES for template in TEMPLATES]
    # as many captions as text, so that the vocabulary has their words
    repeated = captions * max(1, sum(map(len, texts["train"])) // sum(map(len, captions)))
    tokenizer = train_tokenizer(texts["train"] + repeated, options.vocabulary)
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    for split, split_texts in texts.items():
        meta = write_tokens(folder / "text" / split, split_texts, tokenizer)
        counts["text"][split] = {"documents": meta["documents"], "tokens": meta["tokens"]}
    sizes = CodebookOptions(options.image_size, options.patch_size, options.codes, seed=SEED)
    prepare_codebook([folder / "pairs" / "train"], folder / "codebook.safetensors", sizes, progress)
    return {"counts": counts, "sha256": compute_checksums(folder)}


def _write_pairs(folder: Path, records: Records, numbers: list[int], bar: tqdm) -> int:
    for start in range(0, len(numbers), RECORDS_PER_SHARD):
        with ShardWriter(folder / f"{start // RECORDS_PER_SHARD:05d}.tar") as shard:
            for position, fields in enumerate(_pairs(records, numbers[start : start + RECORDS_PER_SHARD]), start):
                shard.write(f"photo-{position:05d}", fields)
                bar.update()
    return len(numbers)


def _pairs(records: Records, numbers: list[int]) -> Iterator[dict[str, bytes]]:
    """Yield the fields of pairs: the image as it is, and ``json``."""
    names = {name: number for number, name in enumerate(CLASSES)}
    for number in numbers:
        try:
            record = records.read(number)
            label = read_label(record, names)
            if not 0 <= label < len(CLASSES):
                raise BadRecord(Reason.UNKNOWN_LABEL, f"{record.key}: label {label} is not from 0 to 9", record.key)
        except BadRecord as error:
            raise UserError(f"--src: {error}. CIFAR-10 is complete: download it again.") from error
        image = {name: data for name, data in record.fields.items() if name in IMAGE_EXTENSIONS}
        captions = [template.format(CLASSES[label]) for template in TEMPLATES]
        yield {**image, "json": json.dumps({"captions": captions, "label": label}).encode()}


def add_parser(commands: Any) -> None:
    default = PhotoOptions()
    parser = commands.add_parser(
        "photos",
        help="create the data of demo_photos.yaml: CIFAR-10 with captions, and text",
        description="Prepares CIFAR-10's 60,000 photographs with captions that contain the class names, and text. "
        "Does nothing if the data are already prepared.",
    )
    parser.add_argument(
        "--out", type=file_path, metavar="DIR", help="new or empty folder (default: the data_dir of demo_photos.yaml)"
    )
    parser.add_argument(
        "--src",
        type=file_path,
        metavar="DIR",
        help="folder with cifar-10-batches-py, or with train and test in any format of docs/own_data.md, with labels "
        "(default: torchvision downloads CIFAR-10)",
    )
    parser.add_argument(
        "--text",
        type=file_path,
        metavar="PATH",
        help="file or folder of texts (default: Python's documentation topics)",
    )
    for name in ("image_size", "patch_size", "codes"):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=integer(1),
            default=getattr(default, name),
            help="(default: %(default)s)",
        )
    parser.add_argument(
        "--vocabulary", type=integer(MIN_VOCABULARY), default=default.vocabulary, help="(default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_photos)


def run_photos(arguments: argparse.Namespace) -> None:
    src, text = (None if path is None else str(path.resolve()) for path in (arguments.src, arguments.text))
    options = PhotoOptions(src, text, arguments.image_size, arguments.patch_size, arguments.codes, arguments.vocabulary)
    out = arguments.out or default_folder()
    manifest = prepare_photos(out, options, not arguments.quiet)
    if not manifest["created"]:
        print(f"The photographs are already in {out}; nothing to do.")
        return
    pairs = ", ".join(f"{count:,} {split}" for split, count in manifest["counts"]["pairs"].items())
    tokens = ", ".join(f"{count['tokens']:,} {split}" for split, count in manifest["counts"]["text"].items())
    print(f"Prepared CIFAR-10 in {out}:\n  pairs  {pairs}\n  tokens {tokens}")


def default_folder() -> Path:
    """Return ``dataset_config.pmd.data_dir`` of demo_photos.yaml."""
    from mmf_flava.config.recipes import recipe_path
    from mmf_flava.data.from_recipe import read_recipe

    return Path(read_recipe(recipe_path("demo_photos")).dataset_config.pmd.data_dir)
