"""The sources of PMD as they are published: one small reader each, from annotation files to ``Row``.

A reader streams: what it holds at a time is one file of annotations at most, and for the large parts one line.
"""

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmf_flava.data.prepare.caption_rules import clean, english_detector, yfcc_caption
from mmf_flava.errors import UserError

# What a file in another format, or one cut short, makes the readers raise.
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OSError)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Row:
    """One image of a source: its captions, its address, names its file may have; or the reason why it is dropped."""

    captions: tuple[str, ...] = ()
    url: str = ""
    names: tuple[str, ...] = ()
    dropped: str = ""


Reader = Callable[[Path], Iterator[Row]]


def open_text(path: Path) -> IO[str]:
    """A text file, gzipped or not; bytes that are not UTF-8 become replacement characters."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8", errors="replace", newline="\n")


def row(captions: Iterable[object], url: object = "", names: Iterable[str] = ()) -> Row:
    """A row of the captions that are not empty after cleaning."""
    kept = tuple(text for text in map(clean, captions) if text)
    address = url if isinstance(url, str) else ""
    return Row(kept, address, tuple(names)) if kept else Row(dropped="no text")


def read_coco(path: Path) -> Iterator[Row]:
    """COCO captions, ``captions_*.json`` {"images": [{id, file_name, coco_url}], "annotations": [{image_id, caption}]},
    or Karpathy's ``dataset_coco.json`` {"images": [{filename, split, sentences: [{raw}]}]} without val and test."""
    data = _json(path)
    if "annotations" not in data:
        for image in data["images"]:
            if image.get("split") in ("val", "test"):
                yield Row(dropped="held out (val or test)")
            else:
                yield row([sentence["raw"] for sentence in image["sentences"]], names=[image["filename"]])
        return
    captions: dict[int, list[str]] = {}
    for annotation in data["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for image in data["images"]:
        yield row(captions.get(image["id"], []), image.get("coco_url"), [image["file_name"]])


def read_sbu(path: Path) -> Iterator[Row]:
    """SBU: JSON {"image_urls": [...], "captions": [...]}, or ``*_urls.txt`` beside ``*_captions.txt``, line by line."""
    if path.suffix == ".json":
        data = _json(path)
        pairs: Iterable[tuple[str, str]] = zip(data["image_urls"], data["captions"], strict=True)
        for url, caption in pairs:
            yield row([caption], url)
        return
    other = path.with_name(path.name.replace("_urls.txt", "_captions.txt"))
    if not path.name.endswith("_urls.txt") or not other.is_file():
        raise UserError(f"{path}: SBU's text files are NAME_urls.txt beside NAME_captions.txt; give the former.")
    with open_text(path) as urls, open_text(other) as captions:
        for url, caption in zip(urls, captions, strict=True):
            yield row([caption], url.strip())


def read_localized_narratives(path: Path) -> Iterator[Row]:
    """Localized Narratives JSONL {"dataset_id", "image_id", "caption", ...}; each sentence becomes a caption."""
    for item in read_json_lines(path):
        name = str(item["image_id"])
        yield row(SENTENCE_END.split(str(item["caption"])), names=[name, *([name.zfill(12)] if name.isdigit() else [])])


def read_cc3m(path: Path) -> Iterator[Row]:
    """Conceptual Captions TSV: caption, url."""
    for fields in _tsv(path):
        yield row([fields[0]], fields[1].strip()) if len(fields) == 2 else Row(dropped="malformed line")


def read_cc12m(path: Path) -> Iterator[Row]:
    """Conceptual 12M TSV: url, caption."""
    for fields in _tsv(path):
        yield row([fields[1]], fields[0].strip()) if len(fields) == 2 else Row(dropped="malformed line")


def read_visual_genome(path: Path) -> Iterator[Row]:
    """``region_descriptions.json`` [{"id": image, "regions": [{"phrase"}]}]; an image has its regions' phrases."""
    for image in _json_array(path):
        yield row([region["phrase"] for region in image["regions"]], names=[f"{image['id']}.jpg"])


def read_wit(path: Path) -> Iterator[Row]:
    """WIT TSV with a header line; English rows, the first of reference, attribution and alt-text description."""
    columns = ("caption_reference_description", "caption_attribution_description", "caption_alt_text_description")
    csv.field_size_limit(sys.maxsize)
    with open_text(path) as file:
        for item in csv.DictReader(file, delimiter="\t"):
            if item["language"] != "en":
                yield Row(dropped="not English")
                continue
            texts = [text for text in (clean(item.get(column)) for column in columns) if text]
            yield row(texts[:1], item["image_url"])


def read_redcaps(path: Path) -> Iterator[Row]:
    """RedCaps ``<subreddit>_<year>.json`` {"annotations": [{"image_id", "url", "caption"}]}."""
    for item in _json(path)["annotations"]:
        yield row([item["caption"]], item["url"], [f"{item['image_id']}.jpg"])


def read_yfcc100m(path: Path) -> Iterator[Row]:
    """``yfcc100m_dataset`` TSV without header, 23 columns, or 25 where a line number and a photo hash were added.

    Of the 23, counted from 0: 0 photo id, 6 title, 7 description (both URL-encoded), 14 download address, 22 marker
    (1 = video). In the 25, the number comes before column 0 and the hash after it.
    """
    is_english = english_detector()
    for fields in _tsv(path):
        if len(fields) not in (23, 25):
            yield Row(dropped="malformed line")
            continue
        identity = fields[1] if len(fields) == 25 else fields[0]
        fields = fields[len(fields) - 23 :]
        if fields[22] == "1":
            yield Row(dropped="video")
            continue
        caption, reason = yfcc_caption(fields[7], fields[6], is_english)
        yield Row(dropped=reason) if caption is None else Row((caption,), fields[14], (identity,))


def read_pmd_records(path: Path) -> Iterator[Row]:
    """Records as ``facebook/pmd`` has them, JSONL or parquet: image_url, text (or the first of texts), source, meta."""
    for item in read_parquet(path) if path.suffix == ".parquet" else read_json_lines(path):
        texts = item.get("texts") or [item.get("text")]
        yield row(texts[:1], item.get("image_url"))


def _json(path: Path) -> Any:
    with open_text(path) as file:
        return json.load(file)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, gzipped or not."""
    with open_text(path) as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _json_array(path: Path) -> Iterator[Any]:
    """The elements of a file that is one JSON array, one at a time; the file may be larger than the memory."""
    decoder, blanks, begun = json.JSONDecoder(), re.compile(r"[\s,]*"), False
    buffer, place = "", 0
    with open_text(path) as file:
        while chunk := file.read(1 << 20):
            buffer, place = buffer[place:] + chunk, 0
            if not begun and (opening := buffer.find("[")) >= 0:
                place, begun = opening + 1, True
            while begun:
                place = blanks.match(buffer, place).end()  # type: ignore[union-attr]
                try:
                    item, place = decoder.raw_decode(buffer, place)
                except ValueError:
                    break  # the element goes on in the next chunk
                yield item
    if buffer[place:].strip() != "]":
        raise ValueError("the array is cut short")


def _tsv(path: Path) -> Iterator[list[str]]:
    with open_text(path) as file:
        for line in file:
            yield line.rstrip("\r\n").split("\t")


def open_parquet(path: Path) -> Any:
    """pyarrow's ParquetFile; UserError when pyarrow is not installed."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'mmf_flava[data]'.") from None
    return ParquetFile(path)


def read_parquet(
    path: Path, columns: list[str] | None = None, first: int = 0, batch_size: int = 1024
) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file from number ``first`` on; UserError when pyarrow is not installed."""
    with open_parquet(path) as file:
        groups = list(range(file.num_row_groups))
        while groups and first >= (rows := file.metadata.row_group(groups[0]).num_rows):
            first -= rows
            del groups[0]
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=columns):
            yield from batch.slice(min(first, len(batch))).to_pylist()
            first = max(0, first - len(batch))
