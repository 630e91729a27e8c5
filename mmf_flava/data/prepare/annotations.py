"""Readers of the published annotation files of PMD's sources.

Readers are generators. They hold at most one annotation file in memory; for the large sources, one line.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmf_flava.data.annotations import to_texts
from mmf_flava.data.prepare.caption_rules import clean, load_english_detector, yfcc_caption
from mmf_flava.data.prepare.rows import BadRow, convert_row
from mmf_flava.data.prepare.source_files import open_text, read_json, read_json_lines, read_parquet, read_tsv
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import iterate_array

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Annotation:
    """An annotated image: captions, URL and possible file names; or the reason why it is dropped."""

    captions: tuple[str, ...] = ()
    url: str = ""
    names: tuple[str, ...] = ()
    dropped: str = ""
    bad: BadRow | None = None  # the error, if a bad row is the reason


AnnotationReader = Callable[[Path], Iterator[Annotation]]


def make_annotation(captions: object, url: object = "", names: Iterable[str] = ()) -> Annotation:
    """Create an annotation from one or several captions. Captions are cleaned, and empty captions are dropped."""
    try:
        cleaned = tuple(text for text in map(clean, to_texts(captions)) if text)
    except ValueError:
        return Annotation(dropped=Reason.UNREADABLE_CAPTION)
    url = url if isinstance(url, str) else ""
    return Annotation(cleaned, url, tuple(names)) if cleaned else Annotation(dropped="no text")


def annotate(rows: Iterable[Any], convert: Callable[[Any], Annotation]) -> Iterator[Annotation]:
    """Yield ``convert(row)`` of each row. A bad row is dropped."""
    for row in rows:
        result = convert_row(row, convert)
        yield Annotation(dropped=result.reason, bad=result) if isinstance(result, BadRow) else result


def read_coco(path: Path) -> Iterator[Annotation]:
    """Read COCO captions. Two formats are supported:

    ``captions_*.json``: {"images": [{id, file_name, coco_url}], "annotations": [{image_id, caption}]}.
    Karpathy's ``dataset_coco.json``: {"images": [{filename, split, sentences: [{raw}]}]}; val and test are dropped.
    """
    data = read_json(path)
    if "annotations" not in data:
        yield from annotate(data["images"], _karpathy_image)
        return
    captions: dict[int, list[str]] = {}

    def add_caption(annotation: Any) -> None:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])

    for annotation in data["annotations"]:
        bad = convert_row(annotation, add_caption)
        if bad is not None:
            yield Annotation(dropped=bad.reason, bad=bad)
    yield from annotate(
        data["images"],
        lambda image: make_annotation(captions.get(image["id"], []), image.get("coco_url"), [image["file_name"]]),
    )


def _karpathy_image(image: Any) -> Annotation:
    if image.get("split") in ("val", "test"):
        return Annotation(dropped="held out (val or test)")
    return make_annotation([sentence["raw"] for sentence in image["sentences"]], names=[image["filename"]])


def read_sbu(path: Path) -> Iterator[Annotation]:
    """Read SBU: JSON {"image_urls": [...], "captions": [...]}, or lines of ``*_urls.txt`` and ``*_captions.txt``."""
    if path.suffix.lower() == ".json":
        data = read_json(path)
        pairs: Iterable[tuple[str, str]] = zip(data["image_urls"], data["captions"], strict=True)
        yield from annotate(pairs, lambda pair: make_annotation(pair[1], pair[0]))
        return
    other = path.with_name(path.name.replace("_urls.txt", "_captions.txt"))
    if not path.name.endswith("_urls.txt") or not other.is_file():
        raise UserError(
            f"{path}: expected NAME_urls.txt with NAME_captions.txt in the same folder. Set --src to NAME_urls.txt."
        )
    with open_text(path) as urls, open_text(other) as captions:
        yield from annotate(zip(urls, captions, strict=True), lambda pair: make_annotation([pair[1]], pair[0].strip()))


def read_localized_narratives(path: Path) -> Iterator[Annotation]:
    """Read Localized Narratives, JSONL {"dataset_id", "image_id", "caption", ...}. Each sentence becomes a caption."""

    def convert(item: Any) -> Annotation:
        name = str(item["image_id"])
        names = [name, *([name.zfill(12)] if name.isdigit() else [])]
        return make_annotation(SENTENCE_END.split(str(item["caption"])), names=names)

    yield from annotate(read_json_lines(path), convert)


def read_cc3m(path: Path) -> Iterator[Annotation]:
    """Read Conceptual Captions, TSV: caption, url."""
    yield from annotate(read_tsv(path), lambda fields: _caption_and_url(fields, 0, 1))


def read_cc12m(path: Path) -> Iterator[Annotation]:
    """Read Conceptual 12M, TSV: url, caption."""
    yield from annotate(read_tsv(path), lambda fields: _caption_and_url(fields, 1, 0))


def _caption_and_url(fields: list[str], caption: int, url: int) -> Annotation:
    if len(fields) != 2:
        return Annotation(dropped="malformed line")
    return make_annotation([fields[caption]], fields[url].strip())


def read_visual_genome(path: Path) -> Iterator[Annotation]:
    """Read Visual Genome's ``region_descriptions.json``, [{"id": image, "regions": [{"phrase"}]}].

    The captions of an image are the phrases of its regions.
    """
    with open_text(path) as file:
        yield from annotate(
            iterate_array(file),
            lambda image: make_annotation(
                [region["phrase"] for region in image["regions"]], names=[f"{image['id']}.jpg"]
            ),
        )


def read_wit(path: Path) -> Iterator[Annotation]:
    """Read the English rows of WIT, a TSV file with a header line.

    The caption is the first non-empty text of the reference, attribution and alt-text descriptions.
    """
    columns = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
    csv.field_size_limit(sys.maxsize)

    def convert(item: Any) -> Annotation:
        if item["language"] != "en":
            return Annotation(dropped="not English")
        texts = [text for text in (clean(item.get(column)) for column in columns) if text]
        return make_annotation(texts[:1], item["image_url"])

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


def read_redcaps(path: Path) -> Iterator[Annotation]:
    """Read RedCaps' ``<subreddit>_<year>.json``, {"annotations": [{"image_id", "url", "caption"}]}."""
    yield from annotate(
        read_json(path)["annotations"],
        lambda item: make_annotation(item["caption"], item["url"], [f"{item['image_id']}.jpg"]),
    )


def read_yfcc100m(path: Path) -> Iterator[Annotation]:
    """Read ``yfcc100m_dataset``, TSV without header: 23 columns, or 25 with a line number and a photo hash.

    Columns, numbered from 0: 0 photo id, 6 title, 7 description (both URL-encoded), 14 download URL, 22 marker
    (1 = video). In the format with 25 columns, the line number precedes column 0 and the hash follows it.
    """
    is_english = load_english_detector()

    def convert(fields: list[str]) -> Annotation:
        if len(fields) not in (23, 25):
            return Annotation(dropped="malformed line")
        identity = fields[1] if len(fields) == 25 else fields[0]
        fields = fields[len(fields) - 23 :]
        if fields[22] == "1":
            return Annotation(dropped="video")
        caption, reason = yfcc_caption(fields[7], fields[6], is_english)
        return Annotation(dropped=reason) if caption is None else Annotation((caption,), fields[14], (identity,))

    yield from annotate(read_tsv(path), convert)


def read_pmd_records(path: Path) -> Iterator[Annotation]:
    """Read annotations in the format of ``facebook/pmd``: JSONL or parquet with image_url and text or texts."""
    rows = read_parquet(path) if path.suffix.lower() == ".parquet" else read_json_lines(path)
    yield from annotate(rows, _pmd_record)


def _pmd_record(item: Any) -> Annotation:
    try:
        captions = to_texts(item.get("texts"), "texts")[:1] or to_texts(item.get("text"), "text")[:1]
    except ValueError:
        return Annotation(dropped=Reason.UNREADABLE_CAPTION)
    return make_annotation(captions, item.get("image_url"))
