"""An annotated image of one of PMD's sources, and what all of their readers share.

Readers are generators of functions that return an annotation, so that rows that are skipped are not converted. They
hold at most one annotation file in memory; for the large sources, one line.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mmf_flava.data.annotations import to_texts
from mmf_flava.data.prepare.caption_rules import clean
from mmf_flava.data.prepare.rows import BadRow, convert_row
from mmf_flava.data.record import Reason
from mmf_flava.files.json_data import parse_json

NO_TEXT = "no text"
MALFORMED_LINE = "malformed line"
# hosts whose file names are unique, so that an image may be found by the file name in its URL alone; in lower case,
# because re.IGNORECASE takes six times as long
UNIQUE_NAMES = re.compile(
    r"flickr\.com|cocodataset\.org|open-?images|/vg_100k|wikimedia\.org|wikipedia\.org|redd\.it|imgur\.com"
)
FLICKR_PHOTO = re.compile(r"(?:static\.?flickr\.com)/(?:\d+/){1,2}(\d+)_")
COCO_NAME = re.compile(r"(?:^|/)COCO_(?:train|val|test)\d{4}_(\d{12})(?:\.\w+)?$|(?:train|val)20\d\d/(\d{12})\.jpg$")


class Region(NamedTuple):
    """A rectangle of an image in pixels. ``image_width`` and ``image_height`` are 0 if they are unknown."""

    x: int
    y: int
    width: int
    height: int
    image_width: int = 0
    image_height: int = 0


class Annotation(NamedTuple):
    """An annotated image: captions, URL and possible file names; or the reason why it is dropped.

    Attributes:
        bad: the error, if a bad row is the reason.
        ids: names of the image in COCO ("coco:42") and Flickr ("flickr:42"), to find images of evaluation sets.
        image: (file name or extension, content) of an image that is stored in the annotations.
        region: part of the image that the captions describe; None: the whole image.
    """

    captions: tuple[str, ...] = ()
    url: str = ""
    names: tuple[str, ...] = ()
    dropped: str = ""
    bad: BadRow | None = None
    ids: frozenset[str] = frozenset()
    image: tuple[str, bytes] | None = None
    region: Region | None = None


LazyAnnotation = Callable[[], Annotation]
AnnotationReader = Callable[[Path], Iterator[LazyAnnotation]]


def make_annotation(captions: object, url: object = "", names: Iterable[str] = (), **fields: Any) -> Annotation:
    """Create an annotation from one or several captions. Captions are cleaned, and empty captions are dropped.

    Args:
        names: possible file names of the image. The file name in the URL is added if it is unique at its host.
        fields: other fields of the annotation. ``ids`` are added to those that the URL and the names contain.
    """
    try:
        cleaned = tuple(text for text in map(clean, to_texts(captions)) if text)
    except ValueError:
        return Annotation(dropped=Reason.UNREADABLE_CAPTION)
    if not cleaned:
        return Annotation(dropped=NO_TEXT)
    url = url.strip() if isinstance(url, str) else ""
    names = tuple(dict.fromkeys(name for name in (*names, *_url_names(url)) if name))
    ids = frozenset(fields.pop("ids", ())) | _find_ids((url, *names))
    return Annotation(cleaned, url, names, ids=ids, **fields)


def malformed_line(fields: int, expected: str) -> Annotation:
    """Return the annotation of a line that has another number of fields than the format."""
    problem = BadRow(MALFORMED_LINE, f"expected {expected} fields separated by tabs, got {fields}")
    return Annotation(dropped=MALFORMED_LINE, bad=problem)


def coco_id(number: object) -> str:
    """Return the id of an image of COCO, from a number or its digits."""
    return f"coco:{int(number)}"  # type: ignore[call-overload]


def flickr_id(number: object) -> str:
    """Return the id of a photo on Flickr; Flickr30K's file names are such numbers."""
    return f"flickr:{int(number)}"  # type: ignore[call-overload]


def coco_names(number: int) -> tuple[str, ...]:
    """Return the file names of an image of COCO in the releases of 2017 and of 2014."""
    return f"{number:012d}.jpg", f"COCO_train2014_{number:012d}.jpg", f"COCO_val2014_{number:012d}.jpg"


def _url_names(url: str) -> tuple[str, ...]:
    if not UNIQUE_NAMES.search(url.lower()):
        return ()
    try:
        name = urlsplit(url).path.rpartition("/")[2]
    except ValueError:
        return ()
    return name, unquote(name)


def _find_ids(texts: Iterable[str]) -> frozenset[str]:
    ids = set()
    for text in texts:
        if "flickr" in text and (match := FLICKR_PHOTO.search(text)):
            ids.add(flickr_id(match[1]))
        if ("COCO_" in text or "20" in text) and (match := COCO_NAME.search(text)):
            ids.add(coco_id(match[1] or match[2]))
    return frozenset(ids)


def annotate(
    rows: Iterable[Any], convert: Callable[[Any], Annotation], load: Callable[[Any], Any] = lambda row: row
) -> Iterator[LazyAnnotation]:
    """Yield a function for each row, which returns ``convert(load(row))``. A bad row is dropped.

    Args:
        load: function that reads a row. Its errors are errors of the file.
    """

    def annotation(row: Any) -> Annotation:
        result = convert_row(load(row), convert)
        return Annotation(dropped=result.reason, bad=result) if isinstance(result, BadRow) else result

    for row in rows:
        yield partial(annotation, row)


def parse_line(convert: Callable[[Any], Annotation], line: str) -> Annotation:
    """Return ``convert(object)`` of a line of JSON."""
    return convert(parse_json(line))
