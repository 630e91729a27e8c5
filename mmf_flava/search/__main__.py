"""Command line of the search: ``python -m mmf_flava.search INDEX QUERY [QUERY ...] [--out FILE]``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.command import ArgumentParser, command, file_path, integer
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord
from mmf_flava.errors import UserError, hide_address
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.embedding_index import EmbeddingIndex, open_index
from mmf_flava.evaluation.embedding_origin import OPTIONS
from mmf_flava.files.html_page import write_page
from mmf_flava.search.nearest import Neighbour, find_nearest
from mmf_flava.search.page import Found, QueryResult, render_page
from mmf_flava.search.thumbnails import Thumbnail, ThumbnailReader, thumbnail_of_query

DESCRIPTION = """\
Searches the embeddings that `python -m mmf_flava.embed` wrote, and writes an HTML page with the found images. QUERY is
a text or the path of an image. The search is exact: every item is compared."""


def build_parser() -> ArgumentParser:
    """Build the command-line parser."""
    parser = ArgumentParser(prog="python -m mmf_flava.search", description=DESCRIPTION)
    parser.add_argument("index", metavar="INDEX", type=file_path, help=".parquet file or folder written by embed")
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="text, or path of an image")
    parser.add_argument(
        "--out", type=file_path, default=Path("found.html"), metavar="FILE", help="page (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=integer(1, 10_000), default=24, metavar="N", help="items per query (default: %(default)s)"
    )
    parser.add_argument(
        "--what", choices=("image", "text"), help="embeddings to search (default: image if INDEX has it)"
    )
    parser.add_argument("--weights", help="default: the weights that INDEX was written with")
    parser.add_argument("--source", help="where the images are now (default: where embed read them)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: the GPU if available, otherwise cpu")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, print its path and the best item of each query, and return the exit code."""
    options = build_parser().parse_intermixed_args(arguments)
    index = open_index(options.index)
    kind = _select_kind(index, options)
    weights = options.weights or index.origin.get("weights")
    if weights is None:
        raise UserError(f"{options.index} does not name the weights of its embeddings. Set --weights.")
    images = [_open_image(query) for query in options.queries]  # before the weights are loaded, which takes longer
    embedder = _build_embedder(index, weights, options)
    embeddings = [
        embedder.texts(query) if image is None else embedder.images(Path(query))
        for query, image in zip(options.queries, images, strict=True)
    ]
    nearest = find_nearest(np.concatenate(embeddings), lambda: index.blocks(kind), options.count, embedder.device)
    reader = ThumbnailReader(options.source or index.origin.get("source"), index.origin.get("columns"))
    results = [
        QueryResult(query, image, _describe(index, neighbours, reader if kind == "image" else None))
        for query, image, neighbours in zip(options.queries, images, nearest, strict=True)
    ]
    page = render_page(results, options.index.name, len(index), kind, hide_address(weights), reader.missing)
    write_page(options.out, page)
    for result in results:
        best = result.found[0] if result.found else None
        print(f"{result.query}: " + (f"{best.score:.3f} {best.item.id}" if best else "nothing was found"))
    for reason, count in reader.missing.items():
        print(f"{count} images cannot be shown: {reason}.", file=sys.stderr)
    print(f"Wrote {options.out}: {len(results)} x {min(options.count, len(index))} of {len(index):,} items.")


def _select_kind(index: EmbeddingIndex, options: Any) -> str:
    """Return the kind of embeddings to search."""
    kinds = [kind for kind in ("image", "text") if kind in index.kinds]
    if options.what and options.what not in kinds:
        raise UserError(f"--what: {options.index} has no {options.what} embeddings, only {', '.join(index.kinds)}.")
    if not kinds:
        raise UserError(
            f"{options.index} has only multimodal embeddings, which cannot be compared with a text or an image. Write "
            "an index with `python -m mmf_flava.embed ... --what image`."
        )
    return options.what or kinds[0]


def _open_image(query: str) -> Thumbnail | None:
    """Return the image of a query that is the path of an image, else None."""
    path = Path(query).expanduser()
    named = path.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS and " " not in path.suffix
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # a text that is too long for a path
        exists = False
    if not exists and not named:
        if not query.strip():
            raise UserError("QUERY: the text is empty. Write what to search for.")
        return None
    try:
        return thumbnail_of_query(path)
    except BadRecord as error:
        raise UserError(f"{error}. Set QUERY to a text or the path of an image.") from error


def _build_embedder(index: EmbeddingIndex, weights: str, options: Any) -> Embedder:
    """Build the embedder with the options that the index was written with."""
    given: dict[str, Any] = {name: index.origin.get(name) for name in OPTIONS}
    return Embedder(weights, given.pop("tokenizer"), options.device, **given)


def _describe(index: EmbeddingIndex, neighbours: Sequence[Neighbour], reader: ThumbnailReader | None) -> list[Found]:
    items = index.items([neighbour.row for neighbour in neighbours])
    return [
        Found(item, neighbour.score, None if reader is None else reader.read(item))
        for item, neighbour in zip(items, neighbours, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
