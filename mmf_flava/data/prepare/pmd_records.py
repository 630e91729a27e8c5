"""Reader of the format of ``facebook/pmd``: {"image" or "image_url", "text" or "texts", "source", "meta"}."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.data.annotations import to_captions
from mmf_flava.data.prepare.annotations import (
    Annotation,
    LazyAnnotation,
    annotate,
    coco_id,
    coco_names,
    flickr_id,
    make_annotation,
    parse_line,
)
from mmf_flava.data.prepare.coco_parts import narratives_source
from mmf_flava.data.prepare.evaluation_images import HELD_OUT, HELD_OUT_SPLITS
from mmf_flava.data.prepare.source_files import lazy_arrow, lazy_parquet, read_lines
from mmf_flava.data.record import Reason
from mmf_flava.files.json_data import parse_object

OTHER_PART = "another part"
# beginnings of the values of "source", in lower case without punctuation
SOURCES = {
    "coco": ("coco", "mscoco"),
    "sbu": ("sbu",),
    "localized_narratives": ("localizednarratives",),
    "conceptual_captions": ("conceptualcaptions", "cc3m"),
    "visual_genome": ("visualgenome",),
    "wit": ("wit",),
    "cc12m": ("conceptual12m", "cc12m", "conceptualcaptions12m"),
    "redcaps": ("redcaps",),
    "yfcc100m": ("yfcc",),
}


def read_pmd_records(path: Path, part: str | None = None) -> Iterator[LazyAnnotation]:
    """Read records from JSONL, parquet or Arrow files. Only the first of several texts is used, as by its loader.

    ``image`` is the struct of Hugging Face's ``datasets``, {"bytes", "path"}, or a path.

    Args:
        part: drop the records whose ``source`` is another part of PMD; None: none.
    """
    suffix, convert = path.suffix.lower(), partial(_convert, part=part)
    if suffix in (".parquet", ".arrow"):
        rows = lazy_parquet(path) if suffix == ".parquet" else lazy_arrow(path)
        yield from annotate(rows, convert, load=lambda read: read())
    else:
        yield from annotate(read_lines(path), partial(parse_line, convert))


def _convert(item: Any, part: str | None) -> Annotation:
    source = item.get("source")
    if part is not None and source_part(source) not in (part, None):
        return Annotation(dropped=OTHER_PART)
    try:
        captions = to_captions(item, ("texts", "text", "captions", "caption"))[:1]
    except ValueError:
        return Annotation(dropped=Reason.UNREADABLE_CAPTION)
    path, image = _image(item.get("image"))
    meta = _meta(item.get("meta"))
    if meta.get("split") in HELD_OUT_SPLITS:
        return Annotation(dropped=HELD_OUT)
    ids, names = _known_image(meta, str(source or ""))
    return make_annotation(
        captions, item.get("image_url"), [os.path.basename(path), path, *names], ids=ids, image=image
    )


def source_part(source: object) -> str | None:
    """Return the part of PMD that a value of ``source`` names; None if it names none."""
    name = re.sub(r"[^a-z0-9]", "", str(source or "").lower())
    found = [(len(start), part) for part, starts in SOURCES.items() for start in starts if name.startswith(start)]
    return max(found)[1] if found else None


def _image(image: Any) -> tuple[str, tuple[str, bytes] | None]:
    """Return (path, embedded image)."""
    if isinstance(image, Mapping):
        name, data = image.get("path"), image.get("bytes")
        name = name if isinstance(name, str) else ""
        return name, (os.path.basename(name), bytes(data)) if isinstance(data, bytes | bytearray) and data else None
    if isinstance(image, bytes) and image:
        return "", ("", image)
    return image if isinstance(image, str) else "", None


def _meta(meta: Any) -> Mapping[str, Any]:
    try:
        return meta if isinstance(meta, Mapping) else parse_object(meta) if isinstance(meta, str) and meta else {}
    except ValueError:
        return {}


def _known_image(meta: Mapping[str, Any], source: str) -> tuple[list[str], list[str]]:
    """Return the ids and file names of an image of COCO or Flickr30K in the original annotation."""
    kind = narratives_source(str(meta.get("dataset_id", ""))) or narratives_source(source)
    numbers = [meta.get("cocoid"), meta.get("coco_id"), meta.get("image_id") if kind == "coco" else None]
    coco = [int(str(number)) for number in numbers if str(number).isdecimal()]
    photos = [meta.get("flickr_id"), meta.get("photoid"), meta.get("image_id") if kind == "flickr30k" else None]
    ids = [*map(coco_id, coco), *(flickr_id(number) for number in photos if str(number).isdecimal())]
    # a region of Visual Genome has the id of its image in COCO, but another image file
    names = [name for number in coco for name in coco_names(number)] if kind == "coco" else []
    return ids, names
