"""Limits of the number of pixels of an image file, which are checked before the image is decoded."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

TILE_WIDTH, TILE_HEIGHT = 322, 323  # TIFF tags
SIZE_OF_CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000 markers SOC and SIZ
JPEG_2000 = struct.Struct(">8xIIII16xH")  # start and end of the image, and number of components
JPEG_2000_COMPONENTS = 4  # Pillow decodes up to four


@contextmanager
def limit_pixels(maximum: int) -> Iterator[None]:
    """Context manager in which Pillow raises an error for images and frames of more than ``maximum`` pixels."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = maximum
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def check_pixels(image: Image.Image, data: bytes, maximum: int) -> None:
    """Check the number of pixels for which a decoder allocates memory.

    It is larger than the image if the headers within a file contradict each other.

    Args:
        image: the opened image, before it is decoded.
        data: the image file.

    Raises:
        Image.DecompressionBombError: there are more than ``maximum`` pixels.
    """
    pixels = image.width * image.height
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        pixels = max(pixels, _integer(tags.get(TILE_WIDTH)) * _integer(tags.get(TILE_HEIGHT)))
    elif image.format == "JPEG2000":
        pixels = max(pixels, _codestream_pixels(data))
    if pixels > maximum:
        raise Image.DecompressionBombError(f"{pixels:,} pixels")


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _codestream_pixels(data: bytes) -> int:
    """Return the number of pixels of a JPEG 2000 codestream. A JP2 file states the size in another header, too."""
    start = data.find(SIZE_OF_CODESTREAM)
    if start < 0 or len(data) < start + JPEG_2000.size:
        return 0
    right, bottom, left, top, components = JPEG_2000.unpack_from(data, start)
    width, height = max(right - left, 0), max(bottom - top, 0)
    return width * height * max(1, -(-components // JPEG_2000_COMPONENTS))
