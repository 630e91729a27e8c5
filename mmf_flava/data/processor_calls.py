"""Calls of the processors of mmf_flava's datasets, which may also be MMF's or a user's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.record import Record


def process_image(
    processor: Any, record: Record, rng: np.random.Generator, training: bool, **options: Any
) -> dict[str, Any]:
    """Decode the image of a record, and return the fields that an image processor makes of it.

    MMF's and users' processors get a PIL image, as from MMF's datasets, and return a tensor or a mapping of fields.

    Args:
        processor: a processor with the interface of ``FlavaImageProcessor``, or another one.
        training: whether a random crop is made. Only then, large JPEGs are decoded at a reduced size.
        options: other keys of the item that ``FlavaImageProcessor`` processes.

    Raises:
        BadRecord: the record has no image, or an invalid one.
    """
    if has_flava_interface(processor):
        pixels = decode_image(record, processor.decode_size if training else None, processor.max_pixels)
        fields: dict[str, Any] = processor({"image": pixels, "rng": rng, "train": training, **options})
        return fields
    processed = processor(Image.fromarray(decode_image(record)))
    return dict(processed) if isinstance(processed, Mapping) else {"image": processed}


def has_flava_interface(processor: Any) -> bool:
    """Return whether a processor has the interface of mmf_flava's image or text processor.

    It draws from the generator of the sample. Other processors draw from the global generators.
    """
    return hasattr(processor, "decode_size") or hasattr(processor, "special")
