import io

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data import image_decoding
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.record import BadRecord, Record


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def photo(width, height, mode="RGB"):
    """Return an image of smooth waves in three colours, similar to a photo."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9) + np.cos(y / 7), np.sin((x + y) / 11) * 2, np.cos(x / 5) * np.sin(y / 6) * 2]
    return Image.fromarray((127 + 60 * np.stack(waves, -1)).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(61, 47), (400, 300), (1000, 750)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"quality": 40}, {"progressive": True}])
def test_simplejpeg_equals_pillow(size, mode, options, monkeypatch):
    pytest.importorskip("simplejpeg")
    record = Record("x", {"jpg": jpeg(photo(*size, mode), **options)})
    fast = decode_image(record, 90)
    monkeypatch.setattr(image_decoding, "simplejpeg", None)
    assert np.array_equal(fast, decode_image(record, 90))


def test_large_jpegs_are_downscaled_but_not_below_side():
    record = Record("x", {"jpg": jpeg(photo(1000, 750))})
    assert decode_image(record, 90).shape == (94, 125, 3)
    assert decode_image(record, 95).shape == (188, 250, 3)
    assert decode_image(record, 1000).shape == (750, 1000, 3)


def test_error_names_record_and_reason():
    with pytest.raises(BadRecord, match=r"shelf/7: not an image \(starts with b'<html>'") as error:
        decode_image(Record("shelf/7", {"jpg": b"<html>"}), 90)
    assert error.value.key == "shelf/7"
