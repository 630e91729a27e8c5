"""``python -m mmf_flava.embed PHOTOS --weights facebook/flava-full --out photos.parquet``: vectors of many items."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmf_flava.data.pictures import decode
from mmf_flava.data.pmd import TEXT_PARTS, describe
from mmf_flava.data.record import BadRecord, Record, Records
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import TOKENIZER, Embedder
from mmf_flava.evaluation.features import bar_interval
from mmf_flava.evaluation.vector_files import write

KINDS = ("image", "text", "multimodal")
DESCRIPTION = """\
Writes FLAVA's vectors of photos, texts or both. SRC is a folder of images, a list of them (.jsonl), tar shards, or a
text file with a text a line. image and text are unit vectors of one space, in which what belongs together lies near;
multimodal is made of image and caption together."""
EPILOG = """\
OUT.parquet has a row an item: id, text where there is one, and a list of floats for each kind; any other OUT is a
folder with image.npy, text.npy, multimodal.npy and ids.txt. Items that cannot be read are named and left out."""


class Items(Dataset):
    """What a record gives: (id, pixels or None, caption or None), or (id, reason) where it cannot be used."""

    def __init__(self, records: Records, embedder: Embedder, what: Sequence[str]) -> None:
        self.records, self.processor = records, embedder.image_processor
        self.pixels = what != ["text"]
        self.caption = what != ["image"]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[str, Tensor | None, str | None] | tuple[str, str]:
        try:
            record = self.records.read(index)
            caption = describe(record)[0][0] if self.caption else None
            return record.key, self._view(record) if self.pixels else None, caption
        except BadRecord as error:
            return error.key or f"record {index}", error.message

    def _view(self, record: Record) -> Tensor:
        item = {"image": decode(record, self.processor.decode_size), "rng": np.random.default_rng(0), "train": False}
        return self.processor(item)["image"]


class Lines(Dataset):
    """The lines of a text file."""

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as text: {error}.") from error
        self.lines = [(number, line.strip()) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        if not self.lines:
            raise UserError(f"{path} has no text: a line a text is looked for.")

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> tuple[str, None, str]:
        number, line = self.lines[index]
        return f"line {number}", None, line


def embed(embedder: Embedder, source: str, what: Sequence[str] = (), workers: int = 0) -> Iterator[dict[str, Any]]:
    """Batches: {"id": names, "text": captions, and (B, E) vectors by kind}; with a progress bar.

    Args:
        what: kinds; by default all that the first item has.

    Raises:
        UserError: no such source, or none of its items can be used.
    """
    items, kinds = _open(embedder, source, what)
    loader = DataLoader(items, embedder.batch_size, num_workers=workers, collate_fn=list)
    done, bad = 0, 0
    with tqdm(total=len(items), unit="item", desc="vectors", mininterval=bar_interval()) as bar:
        for batch in loader:
            good = [item for item in batch if len(item) == 3]
            for name, reason in (item for item in batch if len(item) == 2):
                bar.write(f"left out: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
            bad += len(batch) - len(good)
            done += len(good)
            if good:
                yield _vectors(embedder, good, kinds)
            bar.update(len(batch))
    if not done:
        raise UserError(f"{source}: none of its {bad} items can be used.")


def _open(embedder: Embedder, source: str, what: Sequence[str]) -> tuple[Any, list[str]]:
    path = Path(source).expanduser()
    if path.suffix == ".txt":
        if any(kind != "text" for kind in what):
            raise UserError(f"--what: {source} has texts only, whose one kind is text.")
        return Lines(path), ["text"]
    records = open_records(source if "://" in source else path)
    kinds = list(what) or (["image"] if _caption(records) is None else list(KINDS))
    return Items(records, embedder, kinds), kinds


def _caption(records: Records) -> str | None:
    try:
        return describe(records.read(0, TEXT_PARTS))[0][0]
    except BadRecord:
        return None


def _vectors(embedder: Embedder, items: list[Any], kinds: Sequence[str]) -> dict[str, Any]:
    names, pixels, texts = zip(*items, strict=True)
    batch: dict[str, Any] = {"id": list(names)}
    if texts[0] is not None:
        batch["text"] = list(texts)
    images = torch.stack(pixels) if pixels[0] is not None else torch.empty(0)
    encode = {
        "image": lambda: embedder.image_batch(images),
        "text": lambda: embedder.text_batch(texts),
        "multimodal": lambda: embedder.pair_batch(images, texts),
    }
    return batch | {f"{kind}_vector": encode[kind]() for kind in kinds}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m mmf_flava.embed", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("source", metavar="SRC", help="folder of images, list, tar shards, or .txt")
    made.add_argument(
        "--weights", required=True, help="a run's folder, file, address or hub name (facebook/flava-full)"
    )
    made.add_argument("--out", required=True, type=Path, help="OUT.parquet, or a folder of .npy files")
    made.add_argument("--what", nargs="+", choices=KINDS, default=[], help="kinds; by default what the first item has")
    made.add_argument("--tokenizer", help=f"folder or hub name; by default the weights' own, else {TOKENIZER}")
    made.add_argument("--batch-size", type=int, default=32, help="items a call of the model (%(default)s)")
    made.add_argument("--workers", type=int, default=1, help="processes that read images (%(default)s)")
    made.add_argument("--device", help="cpu, cuda, cuda:1, ...; by default the GPU where there is one")
    made.add_argument("--force", action="store_true", help="replace OUT")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        embedder = Embedder(options.weights, options.tokenizer, options.device, options.batch_size)
        count = write(embed(embedder, options.source, options.what, options.workers), options.out, options.force)
    except UserError as error:
        print(f"mmf_flava: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {options.out}: vectors of {count:,} items.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
