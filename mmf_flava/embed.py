"""Command line that writes embeddings of images and texts to files.

Example: ``python -m mmf_flava.embed PHOTOS --weights facebook/flava-full --out photos.parquet``.
"""

import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmf_flava.command import (
    MAX_WORKERS,
    ArgumentParser,
    bar_interval,
    command,
    end_on_sigterm,
    file_path,
    integer,
)
from mmf_flava.config.columns import ROLES, check_columns
from mmf_flava.config.processors import MAX_LENGTH, TOKENIZER
from mmf_flava.config.workers import check_workers
from mmf_flava.data.quarantine import format_counts
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.embedding_files import check_output, write_embeddings
from mmf_flava.evaluation.embedding_items import KINDS, LineDataset, RecordDataset, open_items
from mmf_flava.evaluation.embedding_origin import describe_origin
from mmf_flava.evaluation.embedding_processes import Processes, read_batches, write_batches
from mmf_flava.files import atomic
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.processes import launched, local_device

DESCRIPTION = """\
Writes FLAVA embeddings of images, texts or both. SRC is a folder of images, a table of images, tar shards, or a text
file (.txt) with one text per line. Image and text embeddings are unit vectors in the same space:
their dot product is their cosine similarity. Multimodal embeddings are computed from an image and its caption."""
EPILOG = """\
If OUT ends in .parquet, the file has one row per item: the id, the text (if any), and one list of floats per kind of
embedding. Otherwise, OUT is a folder with image.npy, text.npy, multimodal.npy, ids.txt and items.jsonl. Unreadable
items are skipped with a warning. With `torchrun --nproc_per_node N -m mmf_flava.embed ...`, N processes, each with
a GPU, write the file that one process writes. `python -m mmf_flava.search OUT "a dog on a beach"` searches OUT."""


def embed(
    embedder: Embedder,
    source: str,
    kinds: Sequence[str] = (),
    workers: int = 0,
    columns: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
) -> Iterator[dict[str, Any]]:
    """Compute the embeddings of all items of a source; yield them in batches, and show a progress bar.

    A batch is a dictionary with the lists "id", "record" (the item's number in the source) and "text", and one array
    per requested kind: "image_vector" and "text_vector" of shape (B, E), "multimodal_vector" of shape (B, D). E is the
    projection size, and D is the width of the multimodal encoder.

    Args:
        kinds: "image", "text" or "multimodal". Default: "text" for a text file; otherwise all three kinds if one of the
            first items has a caption, or "image" if they have none.
        columns: see ``open_records``.
        processes: each process yields the batches of its range; default: this process yields all.

    Raises:
        UserError: the source was not found or has no usable items.
    """
    check_workers(workers, where="--workers")
    items, kinds = open_items(embedder, source, kinds, columns)
    return _embed_items(embedder, source, items, kinds, workers, processes or Processes())


def _embed_items(
    embedder: Embedder,
    source: str,
    items: RecordDataset | LineDataset,
    kinds: Sequence[str],
    workers: int,
    processes: Processes,
) -> Iterator[dict[str, Any]]:
    size, is_first = embedder.batch_size, processes.rank == 0
    own = processes.range_of(-(-len(items) // size))
    numbers = range(own.start * size, min(own.stop * size, len(items)))
    loader = DataLoader(items, size, sampler=numbers, num_workers=workers if numbers else 0, collate_fn=list)
    skipped: Counter[str] = Counter()
    compared = embedder.dtype == "fp32" or not is_first
    processes.compute()
    with tqdm(
        total=len(numbers), unit="item", desc="embeddings", mininterval=bar_interval(), disable=not is_first
    ) as bar:

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
                embeddings = _embed_batch(embedder, usable, kinds)
                if not compared:
                    compared = True
                    bar.write(_compare_with_fp32(embedder, usable, kinds, embeddings))
                yield embeddings
            bar.update(len(batch))
        skipped = sum(processes.gather(skipped), Counter())
        if skipped and is_first:
            counts = format_counts(dict(skipped.most_common()))
            warn(f"{source}: {skipped.total():,} of {len(items):,} items were skipped: {counts}.")
    if skipped.total() == len(items):
        if set(skipped) == {Reason.UNEXPECTED} and numbers:
            errors.stop("all items failed with an unexpected error")
        raise UserError(f"{source}: all {len(items)} items were skipped. Correct them; the reasons are listed above.")


def _compare_with_fp32(
    embedder: Embedder, usable: list[Any], kinds: Sequence[str], embeddings: Mapping[str, Any]
) -> str:
    """Return a sentence with the smallest cosine of the embeddings of a batch with those in fp32."""
    dtype, embedder.dtype = embedder.dtype, "fp32"
    exact = _embed_batch(embedder, usable, kinds)
    embedder.dtype = dtype
    least = 1.0
    for name in (f"{kind}_vector" for kind in kinds):
        norms = np.linalg.norm(exact[name], axis=1) * np.linalg.norm(embeddings[name], axis=1)
        least = min(least, float(((exact[name] * embeddings[name]).sum(1) / norms).min()))
    return (
        f"{dtype}: the smallest cosine with the embeddings in fp32 is {least:.5f} in the first batch ({len(usable)})."
    )


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
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, ...; default: the GPU if available, otherwise cpu; with torchrun, cuda is a GPU for "
        "each process",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype of matrix products; default: bf16 on GPUs that support it, otherwise fp32. The difference from "
        "fp32 is printed",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    options.columns = dict(options.columns) or None
    check_columns(options.columns, "--columns")
    out = options.out.absolute()
    with ExitStack() as stack:
        processes = stack.enter_context(Processes(*launched()))
        with processes.same_errors():
            check_output(options.out, options.force)
            embedder = _load_embedder(options)
            batches = embed(embedder, options.source, options.what, options.workers, options.columns, processes)
            folder = None
            if processes.count > 1 and processes.rank == 0:
                out.parent.mkdir(parents=True, exist_ok=True)
                folder = stack.enter_context(atomic.temporary_folder(out))
        folder = processes.gather(folder)[0]
        with processes.same_errors():
            if processes.rank > 0:
                write_batches(folder / str(processes.rank), batches)
                processes.gather(None)  # the file is complete
                return
            batches = chain(batches, _read_others(processes, folder))
            count = write_embeddings(batches, options.out, options.force, describe_origin(options))
    print(f"Wrote {options.out}: embeddings of {count:,} items.")


def _read_others(processes: Processes, folder: Path | None) -> Iterator[dict[str, Any]]:
    """Wait until the other processes have written their batches; yield them in order."""
    processes.gather(None)
    for rank in range(1, processes.count):
        assert folder is not None
        yield from read_batches(folder / str(rank))


def _load_embedder(options: Any) -> Embedder:
    device = local_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    has_bf16 = device.startswith("cuda") and torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
    return Embedder(
        options.weights,
        options.tokenizer,
        device,
        options.batch_size,
        max_length=options.max_length,
        mean=options.mean,
        std=options.std,
        dtype=options.dtype or ("bf16" if has_bf16 else "fp32"),
    )


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
