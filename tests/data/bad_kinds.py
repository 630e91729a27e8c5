"""Sixty kinds of bad records: images, captions and entries of lists, each with the expected reason."""

import base64
import gzip
import json
import struct
import zipfile
import zlib
from io import BytesIO

from PIL import Image

from tests.data.bad_samples import caption, corrupt, encoded, huge, noise, red

PNG_START = b"\x89PNG\r\n\x1a\n"
DEFECT = (0, 0, 250)  # colour of an image on which the processor in ``test_bad_kinds`` fails


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes, width: int = 32, height: int = 32) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zipped(data: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.jpg", data)
    return file.getvalue()


def images() -> dict[str, tuple[str, bytes, str]]:
    """Return name -> (extension, content of the file, reason)."""
    jpeg, other = encoded(red(), "JPEG"), noise("JPEG")
    rows = zlib.compress(bytes(32 * 97))
    return {
        "empty": ("jpg", b"", "empty image"),
        "one byte": ("jpg", b"\xff", "not an image"),
        "only zeros": ("jpg", bytes(1000), "not an image"),
        "html": ("jpg", b"<html><body>404 Not Found</body></html>", "not an image"),
        "svg": ("png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        "json": ("png", b'{"error": "not found"}', "not an image"),
        "pdf": ("jpg", b"%PDF-1.7\n1 0 obj\n", "not an image"),
        "zip": ("jpg", zipped(jpeg), "not an image"),
        "gzip": ("jpg", gzip.compress(jpeg), "not an image"),
        "base64": ("jpg", base64.b64encode(jpeg), "not an image"),
        "data URL": ("jpg", b"data:image/jpeg;base64," + base64.b64encode(jpeg), "not an image"),
        "pointer of git lfs": ("jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not an image"),
        "mp4": ("jpg", b"\x00\x00\x00\x20ftypisom" + bytes(100), "not an image"),
        "photoshop": ("jpg", b"8BPS\x00\x01" + bytes(100), "not an image"),
        "reversed": ("jpg", jpeg[::-1], "not an image"),
        "line ends of Windows": ("png", noise("PNG").replace(b"\r\n", b"\n"), "not an image"),
        "start of a jpeg": ("jpg", jpeg[:2], "not an image"),
        "first half of a jpeg": ("jpg", other[: len(other) // 2], "truncated image"),
        "first half of a png": ("png", noise("PNG")[:1500], "truncated image"),
        "first half of a gif": ("gif", encoded(Image.open(BytesIO(other)), "GIF")[:1000], "truncated image"),
        "first half of a bmp": ("bmp", noise("BMP")[:1500], "truncated image"),
        "first half of a tiff": ("tif", noise("TIFF")[:1500], "truncated image"),
        "first half of a webp": ("webp", noise("WEBP")[:200], "damaged image"),
        "damaged png": ("png", corrupt(noise("PNG")), "damaged image"),
        "png without pixels": ("png", png(), "damaged image"),
        "png of width 0": ("png", png(chunk(b"IDAT", rows), width=0), "not an image"),
        "png with a bomb in a text": (
            "png",
            png(chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(80 << 20))), chunk(b"IDAT", rows)),
            "damaged image",
        ),
        "huge png": ("png", huge(), "huge image"),
        "gif without images": ("gif", b"GIF89a" + struct.pack("<HH", 60, 60) + bytes(30), "not an image"),
        "float tiff": ("tif", encoded(Image.new("F", (32, 32), 0.5), "TIFF"), "unknown pixel format"),
        "32-bit tiff": ("tif", encoded(Image.new("I", (32, 32), 2**20), "TIFF"), "unknown pixel format"),
        "defect of the processor": ("png", encoded(Image.new("RGB", (32, 32), DEFECT), "PNG"), "unexpected"),
    }


def captions() -> dict[str, tuple[dict[str, bytes], str]]:
    """Return name -> (text fields of a record, reason)."""
    values = {
        "empty caption": ("", "no caption"),
        "blank caption": (" \n\t ", "no caption"),
        "null": (None, "no caption"),
        "NULs": ("\0\0", "no caption"),
        "NaN": (float("nan"), "no caption"),
        "no captions": ([], "no caption"),
        "empty captions": ([None, "", " "], "no caption"),
        "a number": (7, "unreadable caption"),
        "true": (True, "unreadable caption"),
        "an object": ({"en": "a red square"}, "unreadable caption"),
        "nested lists": ([["a red square"]], "unreadable caption"),
        "a list of numbers": ([1, 2], "unreadable caption"),
    }
    texts = {
        "1e999": b'{"caption": 1e999}',
        "100,000 brackets": b"[" * 100_000,
        "100,000 brackets inside": b'{"caption": ' + b"[" * 100_000,
        "100,000 objects": b'{"caption":' * 100_000,
        "a number of 5,000 digits": b'{"caption": ' + b"9" * 5_000 + b"}",
        "empty json": b"",
        "truncated json": b'{"caption": "a red',
        "single quotes": b"{'caption': 'a red square'}",
        "text after json": b'{"caption": "a red square"} {}',
        "two commas": b'{"caption": "a red square",,}',
        "a list": b'["a red square"]',
        "a string": b'"a red square"',
        "null json": b"null",
        "not UTF-8": b'{"caption": "\xff\xfe"}',
        "gzipped json": gzip.compress(b'{"caption": "a red square"}', mtime=0),
        "zeros": bytes(50),
    }
    found = {name: ({"json": caption(value)}, reason) for name, (value, reason) in values.items()}
    found |= {name: ({"json": data}, "unreadable caption") for name, data in texts.items()}
    found["txt that is not UTF-8"] = ({"txt": b"a \xff square"}, "unreadable caption")
    found["empty txt"] = ({"txt": b""}, "no caption")
    found["txt with only a byte order mark"] = ({"txt": b"\xef\xbb\xbf \n"}, "no caption")
    found["without text"] = ({}, "no caption")
    return found


def entries() -> dict[str, tuple[bytes, str]]:
    """Return name -> (line of an image list, reason)."""

    def entry(**fields: object) -> bytes:
        return json.dumps({"image": "good.jpg", **fields}).encode()

    return {
        "missing file": (entry(image="missing.jpg"), "vanished"),
        "a folder": (entry(image="."), "vanished"),
        "path with NUL": (entry(image="a\0b.jpg"), "vanished"),
        "long path": (entry(image="x" * 5000), "vanished"),
        "lone surrogate": (entry(image="\ud800.jpg"), "invalid entry"),
        "image is a number": (entry(image=3), "invalid entry"),
        "image is empty": (entry(image=""), "invalid entry"),
        "no image": (b'{"caption": "a red square"}', "invalid entry"),
        "id is a list": (entry(id=[1]), "invalid entry"),
        "captions are numbers": (entry(captions=[1]), "invalid entry"),
        "no caption": (entry(), "no caption"),
        "null caption": (entry(caption=None), "no caption"),
        "list": (b"[]", "invalid entry"),
        "text": (b"good.jpg a red square", "invalid entry"),
        "100,000 brackets": (b"[" * 100_000, "invalid entry"),
        "1e999": (b'{"image": "good.jpg", "caption": 1e999}', "invalid entry"),
        "not UTF-8": (b'{"image": "\xff.jpg"}', "invalid entry"),
        "truncated": (entry()[:-5], "invalid entry"),
    }
