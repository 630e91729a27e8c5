"""Bytes of a record -> the pixels of a picture."""

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

# Naming the formats saves Pillow from trying all of its plugins on every image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION = 0x0112  # EXIF's
MAX_PIXELS = 89_478_485  # Pillow's own mark of a decompression bomb: 256 MiB as RGB, in every worker


def decode(record: Record, side: int) -> np.ndarray:
    """(h, w, 3) uint8: the picture of a record, upright, in RGB; of an animation the first frame.

    Pillow decides what a picture is and how large it becomes; simplejpeg, where it is installed, decodes the usual JPEG
    faster and to the same bits.

    Args:
        record: with a part whose extension is one of ``IMAGE_EXTENSIONS``.
        side: a JPEG much larger than this is decoded at a half, quarter or eighth of its size, but not below it.

    Raises:
        BadRecord: no such part, or no picture of at most ``MAX_PIXELS`` in it.
    """
    data = next((record.parts[extension] for extension in IMAGE_EXTENSIONS if extension in record.parts), None)
    if data is None:
        raise BadRecord(Reason.NO_IMAGE, f"{record.key}: no image among the parts {sorted(record.parts)}", record.key)
    if not data:
        raise BadRecord(Reason.EMPTY_IMAGE, f"{record.key}: the image has no bytes", record.key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        picture.draft("RGB", (side, side))
        pixels = _usual_jpeg(picture, data)
        if pixels is not None:
            return pixels
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return np.array(to_rgb(_eight_bits(picture)))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = _reason(error)
        detail = (
            f"it begins with {data[:16]!r}" if reason == Reason.NOT_AN_IMAGE else f"{type(error).__name__}: {error}"
        )
        raise BadRecord(reason, f"{record.key}: {reason} ({detail})", record.key) from error


def _usual_jpeg(picture: Image.Image, data: bytes) -> np.ndarray | None:
    """What simplejpeg makes of a JPEG in RGB or grey that lies upright; None where Pillow has to do it."""
    usual = picture.format == "JPEG" and picture.mode in ("RGB", "L") and picture.getexif().get(ORIENTATION, 1) == 1
    if simplejpeg is None or not usual:
        return None
    width, height = picture.size
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:  # damaged, or stranger than it seemed
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey, which Pillow's ``convert`` would clip at 255; other pictures as they are."""
    if picture.mode in MODES:
        return picture
    if picture.mode.startswith("I;16") or (picture.mode == "I" and np.asarray(picture).max() < 2**16):
        return picture.convert("I").point(lambda value: value / 257).convert("L")
    raise BadRecord(Reason.PIXEL_FORMAT, f"pixels of mode {picture.mode} have no known range")


def _reason(error: Exception) -> Reason:
    if isinstance(error, BadRecord):
        return error.reason
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError | MemoryError):
        return Reason.HUGE_IMAGE
    if isinstance(error, Image.UnidentifiedImageError):
        return Reason.NOT_AN_IMAGE
    return Reason.TRUNCATED_IMAGE if "truncated" in str(error).lower() else Reason.DAMAGED_IMAGE
