"""Rendering of the page of found items with template.html, and the style sheets of the report and of this page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmf_flava import __version__
from mmf_flava.evaluation.embedding_index import IndexedItem
from mmf_flava.report import wording
from mmf_flava.report.templates import STYLE, load_template, read_styles
from mmf_flava.search.thumbnails import Thumbnail

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Found:
    """A found item, its similarity with the query, and its image if there is one."""

    item: IndexedItem
    score: float
    thumbnail: Thumbnail | None


@dataclass(frozen=True)
class QueryResult:
    """A query, a text or the path of an image, and what was found, best first."""

    query: str
    thumbnail: Thumbnail | None  # of a query that is an image
    found: Sequence[Found]


def render_page(
    results: Sequence[QueryResult], index: str, size: int, kind: str, weights: str, missing: Mapping[str, int]
) -> str:
    """Return the page as HTML. All queries, IDs and texts are escaped.

    Args:
        index: name of the index.
        size: number of items in the index.
        kind: kind of embeddings that was searched, "image" or "text".
        missing: reason -> number of images that could not be shown.
    """
    return load_template(HERE, wording=wording).render(
        css=read_styles(STYLE, HERE / "search.css"),
        results=results,
        index=index,
        size=size,
        kind=kind,
        weights=weights,
        missing=missing,
        shown=sum(len(result.found) for result in results),
        version=__version__,
    )
