"""Decodes the image of a record to RGB pixels."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from mmf_flava.data.crops import to_rgb
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

# With an explicit list Pillow does not try all of its plugins on every image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUPPORTED_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION = 0x0112  # Exif tag
MAX_PIXELS = 89_478_485  # Pillow's limit for decompression bombs: 256 MiB as RGB, in every worker


def decode_image(record: Record, side: int) -> np.ndarray:
    """Decode the image of a record to RGB, upright according to its Exif orientation.

    Pillow identifies the format and the decoded size. If simplejpeg is installed, it decodes common JPEGs faster and
    bit-identically. Of animations the first frame is used.

    Args:
        record: has a field with one of ``IMAGE_EXTENSIONS``.
        side: larger JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, but not below ``side`` pixels.

    Returns:
        (h, w, 3) uint8.

    Raises:
        BadRecord: the record has no image, or the image is corrupt, unsupported or larger than ``MAX_PIXELS``.
    """
    data = next((record.fields[extension] for extension in IMAGE_EXTENSIONS if extension in record.fields), None)
    if data is None:
        raise BadRecord(Reason.NO_IMAGE, f"{record.key}: no image among the fields {sorted(record.fields)}", record.key)
    if not data:
        raise BadRecord(Reason.EMPTY_IMAGE, f"{record.key}: the image is empty (0 bytes)", record.key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.draft("RGB", (side, side))
        pixels = _decode_simple_jpeg(image, data)
        if pixels is not None:
            return pixels
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(to_rgb(_to_8_bit(image)))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = _reason(error)
        detail = f"starts with {data[:16]!r}" if reason == Reason.NOT_AN_IMAGE else f"{type(error).__name__}: {error}"
        raise BadRecord(reason, f"{record.key}: {reason} ({detail})", record.key) from error


def _decode_simple_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode an upright RGB or grey JPEG with simplejpeg. Return None if Pillow has to decode the image."""
    simple = image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(ORIENTATION, 1) == 1
    if simplejpeg is None or not simple:
        return None
    width, height = image.size
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:  # corrupt, or an unsupported kind of JPEG
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey images to 8-bit grey. Pillow's ``convert`` would clip the values at 255."""
    if image.mode in SUPPORTED_MODES:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and np.asarray(image).max() < 2**16):
        return image.convert("I").point(lambda value: value / 257).convert("L")
    raise BadRecord(Reason.PIXEL_FORMAT, f"the value range of image mode {image.mode} is unknown")


def _reason(error: Exception) -> Reason:
    if isinstance(error, BadRecord):
        return error.reason
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError | MemoryError):
        return Reason.HUGE_IMAGE
    if isinstance(error, Image.UnidentifiedImageError):
        return Reason.NOT_AN_IMAGE
    return Reason.TRUNCATED_IMAGE if "truncated" in str(error).lower() else Reason.DAMAGED_IMAGE
