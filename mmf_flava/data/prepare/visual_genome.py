"""Reader of Visual Genome's region descriptions, and the crops of its regions."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmf_flava.data.prepare.annotations import (
    Annotation,
    LazyAnnotation,
    Region,
    annotate,
    coco_id,
    flickr_id,
    make_annotation,
)
from mmf_flava.data.prepare.rows import file_boundary
from mmf_flava.data.prepare.source_files import COMPRESSED_SUFFIXES, open_text, read_json
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import iterate_array

IMAGE_DATA = "image_data.json"
JPEG_QUALITY = 95
MAX_ASPECT_ERROR = 0.02  # an image with another aspect ratio was cropped, so that regions are elsewhere
OUTSIDE = "region outside the image"
OTHER_SHAPE = "image cropped when it was downloaded"


def find_image_data(path: Path) -> Path | None:
    """Return Visual Genome's list of images beside a file of region descriptions; None if there is none."""
    candidates = (path.with_name(IMAGE_DATA + suffix) for suffix in ("", *COMPRESSED_SUFFIXES))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_visual_genome(path: Path, crop: bool = False) -> Iterator[LazyAnnotation]:
    """Read ``region_descriptions.json``, [{"id": image, "regions": [{"phrase", "x", "y", "width", "height"}]}].

    The captions of an image are the phrases of its regions. ``image_data.json`` in the same folder,
    [{"image_id", "url", "width", "height", "coco_id", "flickr_id"}], adds URLs and the ids of images in COCO.

    Args:
        crop: yield an annotation for each region, instead of one for each image.
    """
    images = _image_data(path)
    with open_text(path) as file:
        for item in iterate_array(file):
            rows = [item]
            if crop and isinstance(item, dict) and isinstance(item.get("regions"), list):
                rows = [{**item, "regions": [region], "crop": True} for region in item["regions"]]
            yield from annotate(rows, lambda row: _convert(row, images))


def _convert(item: Any, images: dict[int, Any] | None) -> Annotation:
    number = item["id"] if "id" in item else item["image_id"]
    phrases = [region["phrase"] for region in item["regions"]]
    data = {} if images is None else images.get(number)
    if data is None:
        return Annotation(dropped=f"not in {IMAGE_DATA}")
    ids = [coco_id(data["coco_id"])] if data.get("coco_id") is not None else []
    ids += [flickr_id(data["flickr_id"])] if data.get("flickr_id") is not None else []
    region = None
    if item.get("crop"):
        box = {key: int(item["regions"][0][key]) for key in ("x", "y", "width", "height")}
        region = Region(**box, image_width=int(data.get("width") or 0), image_height=int(data.get("height") or 0))
    return make_annotation(phrases, data.get("url"), [f"{number}.jpg"], ids=ids, region=region)


def _image_data(path: Path) -> dict[int, Any] | None:
    listed = find_image_data(path)
    if listed is None:
        return None
    with file_boundary(partial(_not_a_list, listed)):
        items = [item for item in read_json(listed) if "image_id" in item or "id" in item]
        return {int(item["image_id"] if "image_id" in item else item["id"]): item for item in items}


def _not_a_list(path: Path, problem: str) -> UserError:
    return UserError(f"{path} is not Visual Genome's list of images or is truncated ({problem}). Download it again.")


def require_image_data(files: list[Path]) -> None:
    """Check that the list of images is beside the region descriptions.

    Raises:
        UserError: there is no list, so that the images of evaluation sets are unknown.
    """
    for path in files:
        if find_image_data(path) is None:
            raise UserError(
                f"{path.with_name(IMAGE_DATA)}: no such file. It says which images are COCO's (coco_id). Download it "
                "from Visual Genome's project page, or add --exclude none to keep all images."
            )


class RegionCropper:
    """Crops regions of images. The pixels of the last image are kept, because its regions follow each other."""

    def __init__(self) -> None:
        self._data = b""
        self._pixels: np.ndarray | None = None

    def crop(self, data: bytes, region: Region, name: str) -> bytes | str:
        """Return the region as a JPEG file, or the reason why it cannot be cropped.

        Raises:
            BadRecord: the image cannot be decoded.
        """
        pixels = self._decode(data, name)
        height, width = pixels.shape[:2]
        full_width, full_height = region.image_width or width, region.image_height or height
        scale_x, scale_y = width / full_width, height / full_height
        if abs(scale_x / scale_y - 1) > MAX_ASPECT_ERROR and abs(full_width * scale_y - width) > 1:
            return OTHER_SHAPE
        left, right = (round(min(max(x, 0), full_width) * scale_x) for x in (region.x, region.x + region.width))
        top, bottom = (round(min(max(y, 0), full_height) * scale_y) for y in (region.y, region.y + region.height))
        if right <= left or bottom <= top:
            return OUTSIDE
        file = io.BytesIO()
        crop = Image.fromarray(pixels[top:bottom, left:right])
        crop.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()

    def _decode(self, data: bytes, name: str) -> np.ndarray:
        from mmf_flava.data.image_decoding import decode_bytes  # imports torch, which takes seconds

        if self._pixels is None or data != self._data:
            self._pixels = None
            if not data:
                raise BadRecord(Reason.EMPTY_IMAGE, f"{name}: the image is empty", name)
            self._pixels, self._data = decode_bytes(data, name), data
        return self._pixels
