"""Command line that writes embeddings of images and texts to files.

Example: ``python -m mmf_flava.embed PHOTOS --weights facebook/flava-full --out photos.parquet``.
"""

import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmf_flava.command import MAX_WORKERS, ArgumentParser, bar_interval, command, file_path, integer
from mmf_flava.config.columns import ROLES, check_columns
from mmf_flava.config.processors import MAX_LENGTH, TOKENIZER
from mmf_flava.config.workers import check_workers
from mmf_flava.data.quarantine import format_counts
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.embedding_files import write_embeddings
from mmf_flava.evaluation.embedding_items import KINDS, open_items
from mmf_flava.evaluation.embedding_origin import describe_origin

DESCRIPTION = """\
Writes FLAVA embeddings of images, texts or both. SRC is a folder of images, a table of images, tar shards, or a text
file (.txt) with one text per line. Image and text embeddings are unit vectors in the same space:
their dot product is their cosine similarity. Multimodal embeddings are computed from an image and its caption."""
EPILOG = """\
If OUT ends in .parquet, the file has one row per item: the id, the text (if any), and one list of floats per kind of
embedding. Otherwise, OUT is a folder with image.npy, text.npy, multimodal.npy, ids.txt and items.jsonl. Unreadable
items are skipped with a warning. `python -m mmf_flava.search OUT "a dog on a beach"` searches OUT."""


def embed(
    embedder: Embedder,
    source: str,
    kinds: Sequence[str] = (),
    workers: int = 0,
    columns: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Compute the embeddings of all items of a source; yield them in batches, and show a progress bar.

    A batch is a dictionary with the lists "id", "record" (the item's number in the source) and "text", and one array
    per requested kind: "image_vector" and "text_vector" of shape (B, E), "multimodal_vector" of shape (B, D). E is the
    projection size, and D is the width of the multimodal encoder.

    Args:
        kinds: "image", "text" or "multimodal". Default: "text" for a text file; otherwise all three kinds if one of the
            first items has a caption, or "image" if they have none.
        columns: see ``open_records``.

    Raises:
        UserError: the source was not found or has no usable items.
    """
    items, kinds = open_items(embedder, source, kinds, columns)
    check_workers(workers, where="--workers")
    loader = DataLoader(items, embedder.batch_size, num_workers=workers, collate_fn=list)
    skipped: Counter[str] = Counter()
    with tqdm(total=len(items), unit="item", desc="embeddings", mininterval=bar_interval()) as bar:

        def warn(message: str) -> None:
            bar.write(message, file=sys.stderr)

        errors = UnexpectedErrors(source, warn)
        for batch in loader:
            for item in batch:
                if isinstance(item, BadRecord):
                    name, reason = item.key, item.message
                    warn(f"skipped: {reason if name is None or name in reason else f'{name}: {reason}'}")
                    skipped[item.reason.value] += 1
                    errors.add_bad(item.failure)
                else:
                    errors.add_good()
            if usable := [item for item in batch if not isinstance(item, BadRecord)]:
                yield _embed_batch(embedder, usable, kinds)
            bar.update(len(batch))
        if skipped:
            counts = format_counts(dict(skipped.most_common()))
            warn(f"{source}: {skipped.total():,} of {len(items):,} items were skipped: {counts}.")
    if skipped.total() == len(items):
        if set(skipped) == {Reason.UNEXPECTED}:
            errors.stop("all items failed with an unexpected error")
        raise UserError(f"{source}: all {len(items)} items were skipped. Correct them; the reasons are listed above.")


def _embed_batch(embedder: Embedder, items: list[Any], kinds: Sequence[str]) -> dict[str, Any]:
    numbers, names, pixels, texts = zip(*items, strict=True)
    batch: dict[str, Any] = {"id": list(names), "record": list(numbers)}
    if texts[0] is not None:
        batch["text"] = list(texts)
    images = torch.stack(pixels) if pixels[0] is not None else torch.empty(0)
    encode = {
        "image": lambda: embedder.embed_image_batch(images),
        "text": lambda: embedder.embed_text_batch(texts),
        "multimodal": lambda: embedder.embed_pair_batch(images, texts),
    }
    return batch | {f"{kind}_vector": encode[kind]() for kind in kinds}


def column(text: str) -> tuple[str, str]:
    """Parse the argparse option ``ROLE=NAME``."""
    role, equals, name = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"must be ROLE=NAME, as in image=filepath, got {text!r}")
    return role, name


def build_parser() -> ArgumentParser:
    """Build the command-line parser."""
    parser = ArgumentParser(prog="python -m mmf_flava.embed", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument(
        "source",
        metavar="SRC",
        help="folder of images, table (.csv, .jsonl, .parquet), tar shards, or text file (.txt)",
    )
    parser.add_argument("--weights", required=True, help="run folder, weights file, URL or Hugging Face model ID")
    parser.add_argument("--out", required=True, type=file_path, help="output: .parquet file, or folder of .npy files")
    parser.add_argument(
        "--what",
        nargs="+",
        choices=KINDS,
        default=[],
        help="kinds of embeddings; default: text for a text file, otherwise all three kinds, or only image if the "
        "first items have no captions",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        type=column,
        default=[],
        metavar="ROLE=NAME",
        help=f"columns of a table by role ({', '.join(ROLES)}), as in image=filepath; default: by their names",
    )
    parser.add_argument(
        "--tokenizer",
        help=f"folder or Hugging Face model ID; default: the tokenizer stored with the weights, otherwise {TOKENIZER}",
    )
    parser.add_argument(
        "--max-length",
        type=integer(3),
        metavar="N",
        help=f"maximum number of tokens per text; default: the value stored with the weights, otherwise {MAX_LENGTH}",
    )
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{name} of the pixel values; default: the {name} stored with the weights, otherwise CLIP's {name}",
        )
    parser.add_argument(
        "--batch-size", type=integer(1), default=32, help="items per forward pass (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=integer(0, MAX_WORKERS),
        default=1,
        help="worker processes of the data loader (default: %(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU if available, otherwise cpu")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    options.columns = dict(options.columns) or None
    check_columns(options.columns, "--columns")
    embedder = Embedder(
        options.weights,
        options.tokenizer,
        options.device,
        options.batch_size,
        max_length=options.max_length,
        mean=options.mean,
        std=options.std,
    )
    batches = embed(embedder, options.source, options.what, options.workers, options.columns)
    count = write_embeddings(batches, options.out, options.force, describe_origin(options))
    print(f"Wrote {options.out}: embeddings of {count:,} items.")


if __name__ == "__main__":
    sys.exit(main())
