"""Readers of the published annotation files of PMD's sources.

Readers are generators. They hold at most one annotation file in memory; for the large sources, one line.
"""

import csv
import gzip
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmf_flava.data.annotations import to_texts
from mmf_flava.data.prepare.caption_rules import clean, load_english_detector, yfcc_caption
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import iterate_array, parse_json

# Exceptions that the readers raise on files that are truncated or in another format.
READ_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OSError)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Annotation:
    """An annotated image: captions, URL and possible file names; or the reason why it is dropped."""

    captions: tuple[str, ...] = ()
    url: str = ""
    names: tuple[str, ...] = ()
    dropped: str = ""


AnnotationReader = Callable[[Path], Iterator[Annotation]]


def open_text(path: Path) -> IO[str]:
    """Open a text file, gzipped or not. Invalid UTF-8 is decoded as replacement characters."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8", errors="replace", newline="\n")


def make_annotation(captions: object, url: object = "", names: Iterable[str] = ()) -> Annotation:
    """Create an annotation from one or several captions. Captions are cleaned, and empty captions are dropped."""
    try:
        cleaned = tuple(text for text in map(clean, to_texts(captions)) if text)
    except ValueError:
        return Annotation(dropped=Reason.UNREADABLE_CAPTION)
    url = url if isinstance(url, str) else ""
    return Annotation(cleaned, url, tuple(names)) if cleaned else Annotation(dropped="no text")


def read_coco(path: Path) -> Iterator[Annotation]:
    """Read COCO captions. Two formats are supported:

    ``captions_*.json``: {"images": [{id, file_name, coco_url}], "annotations": [{image_id, caption}]}.
    Karpathy's ``dataset_coco.json``: {"images": [{filename, split, sentences: [{raw}]}]}; val and test are dropped.
    """
    data = _json(path)
    if "annotations" not in data:
        for image in data["images"]:
            if image.get("split") in ("val", "test"):
                yield Annotation(dropped="held out (val or test)")
            else:
                yield make_annotation([sentence["raw"] for sentence in image["sentences"]], names=[image["filename"]])
        return
    captions: dict[int, list[str]] = {}
    for annotation in data["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for image in data["images"]:
        yield make_annotation(captions.get(image["id"], []), image.get("coco_url"), [image["file_name"]])


def read_sbu(path: Path) -> Iterator[Annotation]:
    """Read SBU: JSON {"image_urls": [...], "captions": [...]}, or lines of ``*_urls.txt`` and ``*_captions.txt``."""
    if path.suffix.lower() == ".json":
        data = _json(path)
        pairs: Iterable[tuple[str, str]] = zip(data["image_urls"], data["captions"], strict=True)
        for url, caption in pairs:
            yield make_annotation(caption, url)
        return
    other = path.with_name(path.name.replace("_urls.txt", "_captions.txt"))
    if not path.name.endswith("_urls.txt") or not other.is_file():
        raise UserError(
            f"{path}: expected NAME_urls.txt with NAME_captions.txt in the same folder. Set --src to NAME_urls.txt."
        )
    with open_text(path) as urls, open_text(other) as captions:
        for url, caption in zip(urls, captions, strict=True):
            yield make_annotation([caption], url.strip())


def read_localized_narratives(path: Path) -> Iterator[Annotation]:
    """Read Localized Narratives, JSONL {"dataset_id", "image_id", "caption", ...}. Each sentence becomes a caption."""
    for item in read_json_lines(path):
        name = str(item["image_id"])
        yield make_annotation(
            SENTENCE_END.split(str(item["caption"])), names=[name, *([name.zfill(12)] if name.isdigit() else [])]
        )


def read_cc3m(path: Path) -> Iterator[Annotation]:
    """Read Conceptual Captions, TSV: caption, url."""
    for fields in _tsv(path):
        yield (
            make_annotation([fields[0]], fields[1].strip())
            if len(fields) == 2
            else Annotation(dropped="malformed line")
        )


def read_cc12m(path: Path) -> Iterator[Annotation]:
    """Read Conceptual 12M, TSV: url, caption."""
    for fields in _tsv(path):
        yield (
            make_annotation([fields[1]], fields[0].strip())
            if len(fields) == 2
            else Annotation(dropped="malformed line")
        )


def read_visual_genome(path: Path) -> Iterator[Annotation]:
    """Read Visual Genome's ``region_descriptions.json``, [{"id": image, "regions": [{"phrase"}]}].

    The captions of an image are the phrases of its regions.
    """
    with open_text(path) as file:
        for image in iterate_array(file):
            yield make_annotation([region["phrase"] for region in image["regions"]], names=[f"{image['id']}.jpg"])


def read_wit(path: Path) -> Iterator[Annotation]:
    """Read the English rows of WIT, a TSV file with a header line.

    The caption is the first non-empty text of the reference, attribution and alt-text descriptions.
    """
    columns = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
    csv.field_size_limit(sys.maxsize)
    with open_text(path) as file:
        for item in csv.DictReader(file, delimiter="\t"):
            if item["language"] != "en":
                yield Annotation(dropped="not English")
                continue
            texts = [text for text in (clean(item.get(column)) for column in columns) if text]
            yield make_annotation(texts[:1], item["image_url"])


def read_redcaps(path: Path) -> Iterator[Annotation]:
    """Read RedCaps' ``<subreddit>_<year>.json``, {"annotations": [{"image_id", "url", "caption"}]}."""
    for item in _json(path)["annotations"]:
        yield make_annotation(item["caption"], item["url"], [f"{item['image_id']}.jpg"])


def read_yfcc100m(path: Path) -> Iterator[Annotation]:
    """Read ``yfcc100m_dataset``, TSV without header: 23 columns, or 25 with a line number and a photo hash.

    Columns, numbered from 0: 0 photo id, 6 title, 7 description (both URL-encoded), 14 download URL, 22 marker
    (1 = video). In the format with 25 columns, the line number precedes column 0 and the hash follows it.
    """
    is_english = load_english_detector()
    for fields in _tsv(path):
        if len(fields) not in (23, 25):
            yield Annotation(dropped="malformed line")
            continue
        identity = fields[1] if len(fields) == 25 else fields[0]
        fields = fields[len(fields) - 23 :]
        if fields[22] == "1":
            yield Annotation(dropped="video")
            continue
        caption, reason = yfcc_caption(fields[7], fields[6], is_english)
        yield Annotation(dropped=reason) if caption is None else Annotation((caption,), fields[14], (identity,))


def read_pmd_records(path: Path) -> Iterator[Annotation]:
    """Read annotations in the format of ``facebook/pmd``: JSONL or parquet with image_url and text or texts."""
    for item in read_parquet(path) if path.suffix.lower() == ".parquet" else read_json_lines(path):
        try:
            captions = to_texts(item.get("texts"), "texts")[:1] or to_texts(item.get("text"), "text")[:1]
        except ValueError:
            yield Annotation(dropped=Reason.UNREADABLE_CAPTION)
            continue
        yield make_annotation(captions, item.get("image_url"))


def _json(path: Path) -> Any:
    with open_text(path) as file:
        return parse_json(file.read())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, gzipped or not."""
    with open_text(path) as file:
        for line in file:
            if line.strip():
                yield parse_json(line)


def _tsv(path: Path) -> Iterator[list[str]]:
    with open_text(path) as file:
        for line in file:
            yield line.rstrip("\r\n").split("\t")


def open_parquet(path: Path) -> Any:
    """Open a parquet file as pyarrow's ParquetFile. Raise UserError if pyarrow is not installed."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'mmf_flava[data]'.") from None
    return ParquetFile(path)


def read_parquet(
    path: Path, columns: list[str] | None = None, first: int = 0, batch_size: int = 1024
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file from row ``first`` on. Raise UserError if pyarrow is not installed."""
    with open_parquet(path) as file:
        groups = list(range(file.num_row_groups))
        while groups and first >= (rows := file.metadata.row_group(groups[0]).num_rows):
            first -= rows
            del groups[0]
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns):
            yield from batch.slice(min(first, len(batch))).to_pylist()
            first = max(0, first - len(batch))
