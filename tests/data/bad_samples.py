"""Records of every kind of bad sample, with the expected outcome."""

import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

CAPTION = b'{"caption": "a red square"}'
RED = (200, 30, 30)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def red(mode: str = "RGB", side: int = 32) -> Image.Image:
    return Image.new("RGB", (side, side), RED).convert(mode)


def noise(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def half_white(mode: str) -> Image.Image:
    """Return an image with a white upper and a black lower half."""
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16] = 255
    return Image.fromarray(pixels).convert(mode)


def rotated() -> bytes:
    """Return a JPEG stored with a white right half; its Exif orientation moves the white half to the bottom."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(half_white("RGB").rotate(-90), "JPEG", exif=exif)


def huge() -> bytes:
    """Return a valid PNG of 20,000 x 20,000 pixels in 50 kB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000 * 2501))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    blue = Image.new("RGB", (32, 32), (0, 0, 255))
    return encoded(red(), kind, save_all=True, append_images=[blue], duration=100, loop=0)


def corrupt(png: bytes) -> bytes:
    at = png.index(b"IDAT") + 12
    return png[:at] + bytes([png[at] ^ 0xFF]) + png[at + 1 :]


def caption(text: Any) -> bytes:
    return json.dumps({"caption": text}).encode()


def records() -> dict[str, tuple[dict[str, bytes], str]]:
    """Return name -> (fields by extension, reason for the replacement or "" if the record is good)."""
    jpeg = encoded(red(), "JPEG")
    deep = Image.fromarray(np.full((32, 32), 200 * 257, np.uint16))
    images = {
        "cmyk": ("jpg", encoded(red("CMYK"), "JPEG"), ""),
        "grey": ("jpg", encoded(red("L"), "JPEG"), ""),
        "16 bits": ("png", encoded(deep, "PNG"), ""),
        "palette": ("png", encoded(red("P"), "PNG"), ""),
        "one bit": ("png", encoded(half_white("1"), "PNG"), ""),
        "transparent": ("png", encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "PNG"), ""),
        "animated gif": ("gif", animated("GIF"), ""),
        "animated webp": ("webp", animated("WEBP"), ""),
        "exif rotated": ("jpg", rotated(), ""),
        "one pixel": ("png", encoded(red(side=1), "PNG"), ""),
        "wrong extension": ("jpg", encoded(red(), "PNG"), ""),
        "extension in capitals": ("JPG", jpeg, ""),
        "huge": ("png", huge(), "huge image"),
        "truncated jpeg": ("jpg", noise("JPEG")[:-400], "truncated image"),
        "truncated png": ("png", noise("PNG")[:-400], "truncated image"),
        "damaged png": ("png", corrupt(noise("PNG")), "damaged image"),
        "empty": ("jpg", b"", "empty image"),
        "html": ("jpg", b"<html><body>404 Not Found</body></html>", "not an image"),
        "svg": ("png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        "float": ("tif", encoded(Image.new("F", (32, 32), 0.5), "TIFF"), "unknown pixel format"),
    }
    captions = {
        "NUL inside": (caption("a red\0square"), ""),
        "lone surrogate": (b'{"caption": "a red \\ud83d square"}', ""),
        "a megabyte": (caption("a red square " * 80_000), ""),
        "empty caption": (caption(""), "no caption"),
        "blank caption": (caption(" \n\t "), "no caption"),
        "null": (caption(None), "no caption"),
        "NULs alone": (caption("\0\0"), "no caption"),
        "a number": (caption(7), "unreadable caption"),
        "not JSON": (b'{"caption": "a red', "unreadable caption"),
        "a list": (b'["a red square"]', "unreadable caption"),
        "not UTF-8": (b'{"caption": "\xff\xfe"}', "unreadable caption"),
    }
    found = {name: ({kind: data, "json": CAPTION}, reason) for name, (kind, data, reason) in images.items()}
    found |= {name: ({"jpg": jpeg, "json": data}, reason) for name, (data, reason) in captions.items()}
    found["text without image"] = ({"json": CAPTION}, "no image")
    found["image without text"] = ({"jpg": jpeg}, "no caption")
    return found
