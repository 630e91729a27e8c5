"""Conversion of images to upright RGB pixels, from records, files, bytes, PIL images and arrays."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from mmf_flava.config.processors import MAX_PIXELS
from mmf_flava.data.image_limits import check_pixels, limit_pixels
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import read_regular_file

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    from PIL import AvifImagePlugin  # noqa: F401 (since Pillow 11.3)

    AVIF: tuple[str, ...] = ("AVIF",)
except ImportError:
    AVIF = ()

ImageInput = str | Path | bytes | Image.Image | np.ndarray

# With an explicit list Pillow does not try all of its plugins on every image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", *AVIF)
SUPPORTED_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION = 0x0112  # Exif tag
ARRAYS = "(h, w), (h, w, 3) or (h, w, 4) of uint8 or uint16"


def decode_image(record: Record, side: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the image of a record, as ``decode_bytes`` does.

    Args:
        record: a record with an image field; ``IMAGE_EXTENSIONS`` lists the possible names of this field.
        side, max_pixels: see ``decode_bytes``.
    """
    data = next((record.fields[extension] for extension in IMAGE_EXTENSIONS if extension in record.fields), None)
    if data is None:
        raise BadRecord(Reason.NO_IMAGE, f"{record.key}: no image among the fields {sorted(record.fields)}", record.key)
    return decode_bytes(data, record.key, side, max_pixels)


def decode_bytes(data: bytes, name: str, side: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file to RGB, upright according to its Exif orientation.

    Pillow identifies the format and the decoded size. If simplejpeg is installed, it decodes common JPEGs faster, with
    identical pixels. The first frame of an animation is used.

    Args:
        name: the record's key or the file's path, for error messages.
        side: JPEGs with more than ``side`` pixels per side are decoded at 1/2, 1/4 or 1/8 of their size, but not below
            ``side``. This is faster, but changes pixels, so it is only used for training. None: full size.
        max_pixels: maximum number of pixels, also of JPEGs that are decoded at a reduced size.

    Returns:
        (h, w, 3) uint8.

    Raises:
        BadRecord: the image is empty, corrupt, unsupported or has more than ``max_pixels``, in which case it is not
            decoded.
    """
    if not data:
        raise BadRecord(Reason.EMPTY_IMAGE, f"{name}: the image is empty (0 bytes)", name)
    try:
        with limit_pixels(max_pixels):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            check_pixels(image, data, max_pixels)
            if side is not None:
                image.draft("RGB", (side, side))
            decoded = _decode_simple_jpeg(image, data)
            return _convert(image) if decoded is None else decoded
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = image_reason(error)
        detail = f"{type(error).__name__}: {error}"
        if reason == Reason.NOT_AN_IMAGE:
            detail = f"starts with {data[:16]!r}"
        elif reason == Reason.HUGE_IMAGE:
            detail = f"more than {max_pixels:,} pixels, the limit max_pixels"
        raise BadRecord(reason, f"{name}: {reason} ({detail})", name) from error


def load_image(image: ImageInput) -> np.ndarray:
    """Load an image from any supported source. The pixels do not depend on the kind of source.

    Args:
        image: the path or the bytes of an image file, or an input of ``to_pixels``.

    Returns:
        (h, w, 3) uint8.

    Raises:
        UserError: the file cannot be read, or the type, shape or dtype is not supported.
        BadRecord: the file is not a valid image.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_bytes(bytes(image), "image")
    if not isinstance(image, str | Path):
        return to_pixels(image)
    try:
        content = read_regular_file(Path(image).expanduser())
    except (OSError, ValueError) as error:  # ValueError: an invalid path
        detail = getattr(error, "strerror", None) or error
        raise UserError(f"{image}: failed to read the file ({detail}). Check the path.") from error
    return decode_bytes(content, str(image))


def to_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Convert a PIL image or an array to RGB pixels, in the same way as ``decode_bytes`` converts an image file.

    Args:
        image: a PIL image of any mode, which is rotated according to its Exif orientation; or an array of shape (H, W),
            (H, W, 3) or (H, W, 4) and dtype uint8 or uint16. Transparent images are composited on white.

    Returns:
        (h, w, 3) uint8.

    Raises:
        UserError: the type, shape or dtype is not supported; the message shows how to convert the input.
        BadRecord: the PIL image cannot be decoded.
    """
    if isinstance(image, np.ndarray):
        return _convert_array(image)
    if not isinstance(image, Image.Image):
        raise UserError(f"image: {_describe_unsupported(image)}")
    try:
        return _convert(image)
    except Exception as error:  # as in decode_bytes; PIL images are decoded on first access
        reason, name = image_reason(error), getattr(image, "filename", "") or "PIL image"
        raise BadRecord(reason, f"{name}: {reason} ({type(error).__name__}: {error})", name) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any 8-bit mode to RGB; transparent images are composited on white."""
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if image.mode in ("LA", "PA", "RGBA") or transparent:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _convert(image: Image.Image) -> np.ndarray:
    return np.array(to_rgb(_to_8_bit(ImageOps.exif_transpose(image))))


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
    """Convert 16-bit images to 8 bits by keeping the high byte, as Pillow does for 16-bit RGB files.

    Pillow's own conversion of 16-bit grey images clips the values at 255.
    """
    transparency = image.info.get("transparency")
    if image.mode in SUPPORTED_MODES:
        if image.mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 255:  # from a 16-bit file
            image.info["transparency"] = tuple(value >> 8 for value in transparency)
        return image
    values = np.asarray(image) if image.mode == "I" or image.mode.startswith("I;16") else None
    if values is None or (image.mode == "I" and not (values.min() >= 0 and 255 < values.max() < 2**16)):
        raise BadRecord(Reason.PIXEL_FORMAT, f"the value range of image mode {image.mode} is unknown")
    pixels = (values >> 8).astype(np.uint8)
    if isinstance(transparency, int):  # the transparent grey value of a PNG
        pixels[values == transparency] = 255
    return Image.fromarray(pixels)


def _convert_array(array: np.ndarray) -> np.ndarray:
    has_dtype = array.dtype.kind == "u" and array.dtype.itemsize <= 2
    has_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not (has_dtype and has_shape):
        raise UserError(f"image: {_describe_unsupported(array)}")
    if not array.size:
        raise UserError(f"image: the array of shape {array.shape} is empty. Pass images of at least one pixel.")
    pixels = (array if array.dtype.itemsize == 1 else array >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.stack((pixels,) * 3, axis=-1)
    return np.array(to_rgb(Image.fromarray(pixels))) if pixels.shape[2] == 4 else pixels


def _describe_unsupported(image: object) -> str:
    """Return an error message with the problem and, for arrays, the code that converts the input."""
    if not isinstance(image, np.ndarray | torch.Tensor):
        return (
            f"expected a path, the bytes of a file, a PIL image or an array, got {type(image).__name__}. Pass a file's "
            "content as bytes (file.read()), and several images as a list."
        )
    name, code = "array", "array"
    if isinstance(image, torch.Tensor):
        code = f"tensor{'.cpu()' * (str(image.device) != 'cpu')}{'.float()' * (image.dtype == torch.bfloat16)}.numpy()"
        name = "tensor"
    shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
    if len(shape) == 4 or (len(shape) == 3 and shape[0] > 4 and shape[2] not in (1, 3, 4)):
        code += "[0]"  # a batch
        shape = shape[1:]
    if len(shape) == 3 and shape[2] not in (3, 4):
        code += ".transpose(1, 2, 0)" if shape[0] in (3, 4) else "[0]" if shape[0] == 1 else "[:, :, 0]"
    if dtype.startswith(("float", "bfloat")):
        code = f"({code} * 255).round().astype(np.uint8)"
    elif dtype == "bool":
        code = f"{code}.astype(np.uint8) * 255"
    elif dtype not in ("uint8", "uint16"):
        code += ".astype(np.uint8)"
    values = " if its values are in [0, 1]" if "float" in dtype else " if its values are in [0, 255]" * ("int" in dtype)
    return (
        f"expected an array of shape {ARRAYS}, got a {name} of shape {tuple(image.shape)} and {dtype}. Convert it with "
        f"`{code}`{values if dtype not in ('uint8', 'uint16') else ''}."
    )


def image_reason(error: Exception) -> Reason:
    """Return the reason why an image is bad, for an exception of its decoder."""
    if isinstance(error, BadRecord):
        return error.reason
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError | MemoryError):
        return Reason.HUGE_IMAGE
    if isinstance(error, Image.UnidentifiedImageError):
        return Reason.NOT_AN_IMAGE
    return Reason.TRUNCATED_IMAGE if "truncated" in str(error).lower() else Reason.DAMAGED_IMAGE
