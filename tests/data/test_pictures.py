import io

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data import pictures
from mmf_flava.data.pictures import decode
from mmf_flava.data.record import BadRecord, Record


def jpeg(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def photo(width, height, mode="RGB"):
    """Waves in three colours, smooth as a photo is."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9) + np.cos(y / 7), np.sin((x + y) / 11) * 2, np.cos(x / 5) * np.sin(y / 6) * 2]
    return Image.fromarray((127 + 60 * np.stack(waves, -1)).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(61, 47), (400, 300), (1000, 750)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"quality": 40}, {"progressive": True}])
def test_simplejpeg_gives_pillows_bits(size, mode, options, monkeypatch):
    pytest.importorskip("simplejpeg")
    record = Record("x", {"jpg": jpeg(photo(*size, mode), **options)})
    fast = decode(record, 90)
    monkeypatch.setattr(pictures, "simplejpeg", None)
    assert np.array_equal(fast, decode(record, 90))


def test_large_jpegs_are_decoded_smaller_but_not_below_the_side():
    record = Record("x", {"jpg": jpeg(photo(1000, 750))})
    assert decode(record, 90).shape == (94, 125, 3)
    assert decode(record, 95).shape == (188, 250, 3)
    assert decode(record, 1000).shape == (750, 1000, 3)


def test_the_message_names_record_and_reason():
    with pytest.raises(BadRecord, match=r"shelf/7: not an image \(it begins with b'<html>'") as found:
        decode(Record("shelf/7", {"jpg": b"<html>"}), 90)
    assert found.value.key == "shelf/7"
