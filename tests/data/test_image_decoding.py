import io
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from mmf_flava.data import image_decoding
from mmf_flava.data.image_decoding import decode_bytes, decode_image, load_image
from mmf_flava.data.record import BadRecord, Reason, Record
from mmf_flava.errors import UserError


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


def test_without_side_jpegs_have_their_full_size():
    assert decode_image(Record("x", {"jpg": jpeg(photo(1000, 750))})).shape == (750, 1000, 3)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_exif(orientation):
    exif = Image.Exif()
    exif[image_decoding.ORIENTATION] = orientation
    return exif


def grey_16():
    """Return an image whose values have different low bytes."""
    return Image.fromarray((np.arange(40 * 30).reshape(30, 40) * 54 + 3).astype(np.uint16))


FILES = {
    "rgb": saved(photo(40, 30), "PNG"),
    "jpeg": jpeg(photo(40, 30)),
    "grey": saved(photo(40, 30, "L"), "PNG"),
    "bilevel": saved(photo(40, 30, "1"), "PNG"),
    "palette": saved(photo(40, 30, "P"), "PNG"),
    "cmyk": jpeg(photo(40, 30, "CMYK")),
    "rgba": saved(Image.merge("RGBA", (*photo(40, 30).split(), photo(40, 30, "L"))), "PNG"),
    "grey alpha": saved(Image.merge("LA", (photo(40, 30, "L"), photo(40, 30, "L").rotate(180))), "PNG"),
    "16-bit": saved(grey_16(), "PNG"),
    "16-bit tiff": saved(grey_16(), "TIFF"),
    "16-bit transparent": saved(grey_16(), "PNG", transparency=54 * 7 + 3),
    "rgb transparent": saved(photo(40, 30), "PNG", transparency=photo(40, 30).getpixel((3, 3))),
    "grey transparent": saved(photo(40, 30, "L"), "PNG", transparency=photo(40, 30, "L").getpixel((3, 3))),
    "palette transparent": saved(photo(40, 30, "P"), "PNG", transparency=bytes(range(256))),
    "gif": saved(photo(40, 30), "GIF"),
    "webp": saved(photo(40, 30), "WEBP"),
    "bmp": saved(photo(40, 30), "BMP"),
    "jpeg 2000": saved(photo(40, 30), "JPEG2000"),
    **{f"exif {n}": jpeg(photo(40, 30), exif=rotated_exif(n)) for n in (1, 3, 6, 8)},
}


@pytest.mark.parametrize("name", FILES)
def test_all_sources_give_the_same_pixels(name, tmp_path):
    content = FILES[name]
    (tmp_path / "1.jpg").write_bytes(content)
    expected = decode_image(Record("x", {"jpg": content}))
    assert expected.shape == ((40, 30, 3) if name in ("exif 6", "exif 8") else (30, 40, 3))
    opened, loaded = Image.open(io.BytesIO(content)), Image.open(tmp_path / "1.jpg")
    loaded.load()
    sources = [content, bytearray(content), tmp_path / "1.jpg", str(tmp_path / "1.jpg"), opened, loaded, expected]
    for source in sources:
        assert np.array_equal(load_image(source), expected), type(source)
    assert np.array_equal(load_image(opened), expected), "the image is not modified"


def test_avif_is_read():
    if not image_decoding.AVIF:
        pytest.skip("this Pillow has no AVIF")
    content = saved(photo(40, 30), "AVIF")
    assert decode_image(Record("x", {"avif": content})).shape == (30, 40, 3)


@pytest.mark.parametrize("extension", ["jfif", "jp2", "avif"])
def test_more_extensions_are_images(extension):
    assert decode_image(Record("x", {extension: FILES["jpeg"]})).shape == (30, 40, 3)


def test_16_bit_images_keep_their_high_byte():
    values = np.asarray(grey_16())
    expected = np.stack([(values >> 8).astype(np.uint8)] * 3, -1)
    for source in (FILES["16-bit"], FILES["16-bit tiff"], values, values.astype(">u2"), np.stack([values] * 3, -1)):
        assert np.array_equal(load_image(source), expected)
    transparent = load_image(FILES["16-bit transparent"])
    assert (transparent != expected).any(-1).sum() == 1 and (transparent.reshape(-1, 3)[7] == 255).all()


def test_arrays_equal_the_files_with_their_pixels():
    for name in ("rgb", "grey", "rgba"):
        array = np.array(Image.open(io.BytesIO(FILES[name])))
        array.flags.writeable = False
        assert np.array_equal(load_image(array), load_image(FILES[name]))
        assert np.array_equal(load_image(array.astype(np.uint16) * 256 + 9), load_image(FILES[name]))


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (torch.zeros(3, 8, 9), "(tensor.numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), "tensor.numpy()"),
        (np.zeros((8, 9)), "(array * 255).round().astype(np.uint8)"),
        (np.zeros((8, 9, 3), np.float32), "(array * 255).round().astype(np.uint8)"),
        (np.zeros((8, 9), bool), "array.astype(np.uint8) * 255"),
        (np.zeros((8, 9, 3), np.int64), "array.astype(np.uint8)"),
        (np.zeros((8, 9, 1), np.uint8), "array[:, :, 0]"),
        (np.zeros((1, 8, 9), np.uint8), "array[0]"),
        (np.zeros((3, 8, 9), np.uint8), "array.transpose(1, 2, 0)"),
        (np.zeros((2, 3, 8, 9), np.uint8), "array[0].transpose(1, 2, 0)"),
        (np.zeros((8, 9, 3), np.uint32), "array.astype(np.uint8)"),
    ],
)
def test_other_arrays_raise_with_the_conversion(image, code):
    with pytest.raises(UserError) as error:
        load_image(image)
    assert f"`{code}`" in str(error.value)
    converted = eval(code, {"np": np, "array": image, "tensor": image})
    assert load_image(converted).shape == (8, 9, 3)


@pytest.mark.parametrize("image", [None, 3, ["a.jpg"], {"image": 1}, io.BytesIO(b"x"), np.zeros((0, 4, 3), np.uint8)])
def test_other_types_raise(image):
    with pytest.raises(UserError, match=r"^image: "):
        load_image(image)


def test_images_of_unknown_range_raise():
    for image in (Image.new("F", (4, 4)), Image.new("I", (4, 4), 200), Image.new("I", (4, 4), -70_000)):
        with pytest.raises(BadRecord, match="unknown pixel format"):
            load_image(image)
    assert load_image(Image.new("I", (4, 4), 513))[0, 0].tolist() == [2, 2, 2]


def test_error_names_record_and_reason():
    with pytest.raises(BadRecord, match=r"shelf/7: not an image \(starts with b'<html>'") as error:
        decode_image(Record("shelf/7", {"jpg": b"<html>"}), 90)
    assert error.value.key == "shelf/7"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind, data):
    """Return a PNG with another chunk before its pixels."""
    png = saved(photo(16, 16), "PNG")
    return png[:33] + chunk(kind, data) + png[33:]


def with_large_frame():
    """Return a GIF whose first frame exceeds the size in the file's header."""
    gif = bytearray(saved(Image.new("L", (16, 16)), "GIF"))
    at = gif.index(b",", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    gif[at + 5 : at + 9] = struct.pack("<HH", 9000, 9000)
    return bytes(gif)


def with_large_codestream():
    jp2 = bytearray(saved(photo(16, 16), "JPEG2000"))
    at = jp2.index(b"\xff\x4f\xff\x51")
    jp2[at + 8 : at + 16] = struct.pack(">II", 9000, 9000)
    return bytes(jp2)


def with_large_tile():
    """Return a TIFF of 16 x 16 pixels in one compressed tile of 30,000 x 30,000 pixels."""
    tile = zlib.compress(bytes(256))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: len(tile)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(tile))
    return header + tile + struct.pack("<H", len(tags)) + directory + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", *image_decoding.AVIF])
def test_images_above_max_pixels_are_not_decoded(kind, monkeypatch):
    data = saved(photo(40, 30), kind)
    assert decode_bytes(data, "x", max_pixels=1200).shape == (30, 40, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the image was decoded"))
    monkeypatch.setattr(image_decoding, "simplejpeg", None)
    for side in (None, 4):
        with pytest.raises(
            BadRecord, match=r"^x: huge image \(more than 1,199 pixels, the limit max_pixels\)$"
        ) as caught:
            decode_bytes(data, "x", side, max_pixels=1199)
        assert caught.value.reason is Reason.HUGE_IMAGE


def test_max_pixels_may_exceed_pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_bytes(saved(photo(40, 30), "PNG"), "x", max_pixels=1200).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(BadRecord, match="huge image"):
        decode_bytes(saved(photo(40, 30), "PNG"), "x", max_pixels=400)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_large_frame(), Reason.HUGE_IMAGE),
        (with_large_codestream(), Reason.HUGE_IMAGE),
        (with_large_tile(), Reason.HUGE_IMAGE),
        (with_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(100 << 20))), Reason.DAMAGED_IMAGE),
        (with_chunk(b"iCCP", b"key\0\0" + zlib.compress(bytes(100 << 20))), Reason.DAMAGED_IMAGE),
        (with_chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(100 << 20))), Reason.DAMAGED_IMAGE),
    ],
    ids=["GIF frame", "JPEG 2000 codestream", "TIFF tile", "PNG text", "PNG profile", "PNG international text"],
)
def test_contradicting_headers_do_not_exceed_the_limits(data, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadRecord) as caught:
        decode_bytes(data, "x", max_pixels=1_000_000)
    assert caught.value.reason is reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
