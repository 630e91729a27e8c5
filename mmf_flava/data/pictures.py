"""Bytes of a record -> a picture."""

import io

from PIL import Image

from mmf_flava.data.records import IMAGE_EXTENSIONS
from mmf_flava.data.shards import BadRecord, Record

# Naming the formats saves Pillow from trying all of its plugins on every image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode(record: Record, side: int) -> Image.Image:
    """The picture of a record.

    Args:
        record: with a part whose extension is one of ``IMAGE_EXTENSIONS``.
        side: a JPEG much larger than this is decoded at a half, quarter or eighth of its size, but not below it.

    Raises:
        BadRecord: no such part, or its bytes are no picture.
    """
    data = next((record.parts[extension] for extension in IMAGE_EXTENSIONS if extension in record.parts), None)
    if data is None:
        raise BadRecord(f"{record.key}: no image among the parts {sorted(record.parts)}")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        picture.draft("RGB", (side, side))
        picture.load()
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BadRecord(f"{record.key}: not a readable picture ({type(error).__name__}: {error})") from error
    return picture
