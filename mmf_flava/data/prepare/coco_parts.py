"""Readers of COCO's captions and of Localized Narratives."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

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
from mmf_flava.data.prepare.evaluation_images import HELD_OUT, HELD_OUT_SPLITS, split_ids
from mmf_flava.data.prepare.rows import convert_row
from mmf_flava.data.prepare.source_files import read_json, read_lines

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
OPEN_IMAGES = "https://s3.amazonaws.com/open-images-dataset"


def read_coco(path: Path) -> Iterator[LazyAnnotation]:
    """Read COCO captions. Two formats are supported:

    ``captions_*.json``: {"images": [{id, file_name, coco_url, flickr_url}], "annotations": [{image_id, caption}]}.
    Karpathy's ``dataset_coco.json``: {"images": [{filename, filepath, cocoid, split, sentences: [{raw}]}]}; val and
    test are dropped.
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
            yield partial(Annotation, dropped=bad.reason, bad=bad)

    def convert(image: Any) -> Annotation:
        names = [image["file_name"], *coco_names(image["id"]), image.get("flickr_url", "")]
        return make_annotation(captions.get(image["id"], []), image.get("coco_url"), names, ids=[coco_id(image["id"])])

    yield from annotate(data["images"], convert)


def _karpathy_image(image: Any) -> Annotation:
    if image.get("split") in HELD_OUT_SPLITS:
        return Annotation(dropped=HELD_OUT)
    name, folder = image["filename"], image.get("filepath")
    url = f"http://images.cocodataset.org/{folder}/{name}" if folder else ""
    names = [name, *(coco_names(image["cocoid"]) if "cocoid" in image else ())]
    return make_annotation([sentence["raw"] for sentence in image["sentences"]], url, names, ids=split_ids(image))


def read_localized_narratives(path: Path) -> Iterator[LazyAnnotation]:
    """Read Localized Narratives, JSONL {"dataset_id", "image_id", "caption", ...}. Each sentence becomes a caption.

    ``dataset_id`` is for example mscoco_train2017, Flick30k_train, ADE20k_train or open_images_train.
    """

    def convert(item: Any) -> Annotation:
        name, dataset = str(item["image_id"]), str(item.get("dataset_id", ""))
        kind, url, names, ids = narratives_source(dataset), "", [name], []
        if name.isdecimal() and kind in ("coco", ""):
            names += [stem.removesuffix(".jpg") for stem in coco_names(int(name))]
            ids.append(coco_id(name))
        if name.isdecimal() and kind in ("flickr30k", ""):
            ids.append(flickr_id(name))
        if name.isdecimal() and kind == "ade20k":
            names += [f"ADE_{'val' if 'val' in dataset else 'train'}_{int(name):08d}"]
        if kind == "open_images":
            split = next((split for split in ("validation", "test") if split in dataset), "train")
            url = f"{OPEN_IMAGES}/{split}/{name}.jpg"
        return make_annotation(SENTENCE_END.split(str(item["caption"])), url, names, ids=ids)

    yield from annotate(read_lines(path), partial(parse_line, convert))


def narratives_source(name: str) -> str:
    """Return the image source in a ``dataset_id`` or a file name of Localized Narratives; empty if it is unknown."""
    sources = {"coco": "coco", "flick": "flickr30k", "ade20k": "ade20k", "open_images": "open_images"}
    return next(
        (source for text, source in sources.items() if text in name.lower().replace("openimages", "open_images")), ""
    )
