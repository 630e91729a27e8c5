"""Small copies of the found images, read again from the source of the index."""

import base64
import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mmf_flava.data.image_decoding import ImageInput, decode_image, load_image
from mmf_flava.data.record import BadRecord, Records, record_boundary
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError, hide_secrets
from mmf_flava.evaluation.embedding_index import IndexedItem

SIDE = 360  # pixels of the longer side of a thumbnail
SMALL = 96  # pixels: smaller images are shown without interpolation
CHANGED = "the source has another record at this place"


@dataclass(frozen=True)
class Thumbnail:
    """An image embedded in the page as JPEG."""

    source: str  # a data: URL
    width: int
    height: int

    @property
    def small(self) -> bool:
        return max(self.width, self.height) < SMALL


@dataclass
class ThumbnailReader:
    """Reader of the images of an index. An image that cannot be read is None, and its reason is counted.

    Attributes:
        missing: reason -> number of images that were not found.
    """

    source: str | None
    columns: dict[str, Any] | None = None
    missing: dict[str, int] = field(default_factory=dict)
    records: Records | None = None

    def __post_init__(self) -> None:
        self.failure = "the index does not name the source of its images; set --source" if self.source is None else ""
        if self.source is not None:
            try:
                self.records = open_records(self.source, columns=self.columns)
            except (UserError, OSError) as error:
                self.failure = hide_secrets(error).rstrip(".")

    def read(self, item: IndexedItem) -> Thumbnail | None:
        try:
            return self._read(item)
        except BadRecord as error:
            reason = str(error.reason)
        except LookupError as error:
            reason = str(error.args[0])
        self.missing[reason] = self.missing.get(reason, 0) + 1
        return None

    def _read(self, item: IndexedItem) -> Thumbnail:
        if self.records is None or item.record is None:
            raise LookupError(self.failure or "the index does not have the numbers of its records")
        if not 0 <= item.record < len(self.records):
            raise LookupError(CHANGED)
        with record_boundary(item.id):
            record = self.records.read(item.record)
            if record.key != item.id:
                raise LookupError(CHANGED)
            return make_thumbnail(Image.fromarray(decode_image(record)))


def make_thumbnail(image: Image.Image) -> Thumbnail:
    """Return an RGB image as a JPEG of at most ``SIDE`` pixels; small images remain exact enough at a high quality."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small = max(image.size) < SMALL
    image.save(buffer, "jpeg", quality=95 if small else 82, subsampling=0 if small else -1)
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size)


def thumbnail_of_query(image: ImageInput) -> Thumbnail:
    """Return the thumbnail of an image file. Raises UserError and BadRecord as ``load_image`` does."""
    return make_thumbnail(Image.fromarray(load_image(image)))
