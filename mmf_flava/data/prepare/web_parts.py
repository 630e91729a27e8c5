"""Readers of PMD's sources from the web: SBU, Conceptual Captions, Conceptual 12M, WIT and RedCaps."""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmf_flava.data.prepare.annotations import (
    NO_TEXT,
    Annotation,
    LazyAnnotation,
    annotate,
    make_annotation,
    malformed_line,
)
from mmf_flava.data.prepare.caption_rules import clean, english_part
from mmf_flava.data.prepare.source_files import open_text, read_json, read_tsv
from mmf_flava.errors import UserError

WIT_CAPTIONS = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
NOT_ENGLISH = "not English"


def read_sbu(path: Path) -> Iterator[LazyAnnotation]:
    """Read SBU: ``sbu-captions-all.json``, {"image_urls": [...], "captions": [...]}; or the lines of ``*_urls.txt`` and
    ``*_captions.txt``."""
    if "urls" not in path.name and "captions.txt" not in path.name:
        data = read_json(path)
        pairs: Iterable[tuple[str, str]] = zip(data["image_urls"], data["captions"], strict=True)
        yield from annotate(pairs, _sbu_pair)
        return
    urls, captions = sbu_text_files(path)
    if not urls.is_file() or not captions.is_file():
        raise UserError(
            f"{path}: expected NAME_urls.txt with NAME_captions.txt in the same folder. Set --src to NAME_urls.txt."
        )
    with open_text(urls) as url_lines, open_text(captions) as caption_lines:
        yield from annotate(zip(url_lines, caption_lines, strict=True), _sbu_pair)


def sbu_text_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the URLs and of the captions, given one of them."""
    return (
        path.with_name(path.name.replace("captions.txt", "urls.txt")),
        path.with_name(path.name.replace("urls.txt", "captions.txt")),
    )


def _sbu_pair(pair: tuple[Any, Any]) -> Annotation:
    url = pair[0].strip() if isinstance(pair[0], str) else ""
    return make_annotation([pair[1]], url, [urlsplit(url).path.strip("/").replace("/", "_")])


def read_cc3m(path: Path) -> Iterator[LazyAnnotation]:
    """Read Conceptual Captions, TSV: caption, url."""
    yield from _captions_and_urls(path, 0, 1)


def read_cc12m(path: Path) -> Iterator[LazyAnnotation]:
    """Read Conceptual 12M, TSV: url, caption."""
    yield from _captions_and_urls(path, 1, 0)


def _captions_and_urls(path: Path, caption: int, url: int) -> Iterator[LazyAnnotation]:
    """Read lines of two fields. A header line, which img2dataset needs, is skipped and may change the order."""

    def convert(fields: list[str]) -> Annotation:
        if len(fields) != 2:
            return malformed_line(len(fields), "2")
        return make_annotation([fields[caption]], fields[url])

    rows = read_tsv(path)
    first = next(rows, None)
    if first is None:
        return
    named = header_url(first)
    if named is None:
        yield from annotate([first], convert)
    else:
        caption, url = 1 - named, named
    yield from annotate(rows, convert)


def header_url(fields: list[str]) -> int | None:
    """Return the number of the column of URLs if a line is a header, such as "caption, url"; None if it is none."""
    names = [field.strip().lower() for field in fields]
    found = [number for number, name in enumerate(names) if name in ("url", "image_url")]
    is_header = len(names) == 2 and len(found) == 1 and names[1 - found[0]] in ("caption", "text", "title")
    return found[0] if is_header else None


def read_wit(path: Path) -> Iterator[LazyAnnotation]:
    """Read the English rows of WIT, a TSV file with a header line.

    The caption is the first non-empty text of the reference, attribution and alt-text descriptions. The attribution
    begins with its language ("English: "), which is removed; it is only used if ``attribution_passes_lang_id``, which
    says that this is the language of the page.
    """
    csv.field_size_limit(sys.maxsize)

    def convert(item: Any) -> Annotation:
        if item["language"] != "en":
            return Annotation(dropped=NOT_ENGLISH)
        for column in WIT_CAPTIONS:
            text = clean(item.get(column))
            if column == WIT_CAPTIONS[1]:
                passes = str(item.get("attribution_passes_lang_id", "true")).strip().lower() not in ("false", "0")
                text = english_part(text) if passes else ""
            if text:
                return make_annotation([text], item["image_url"])
        return Annotation(dropped=NO_TEXT)

    with open_text(path) as file:
        yield from annotate(_csv_rows(csv.DictReader(file, delimiter="\t")), convert)


def _csv_rows(reader: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = ValueError(str(error))
        yield row


def read_redcaps(path: Path) -> Iterator[LazyAnnotation]:
    """Read RedCaps' ``<subreddit>_<year>.json``, {"annotations": [{"image_id", "url", "raw_caption", "caption"}]}."""
    yield from annotate(
        read_json(path)["annotations"],
        lambda item: make_annotation(item["caption"], item["url"], [f"{item['image_id']}.jpg"]),
    )
