"""The interface of file formats for the fuzzer, and helpers of their toy files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmf_flava.data.record import BadRecord, Reason, record_boundary

COUNT = 6  # records of a toy file
Delivered = dict[Any, Any]  # name of a record -> its content


def write_image(path: Path, seed: int) -> bytes:
    """Write a small PNG whose pixels depend on ``seed``, and return its bytes."""
    pixels = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path.read_bytes()


def collect(reader: Any, convert: Any) -> Delivered:
    """Read all records under the boundary that datasets use; bad records are left out."""
    delivered: Delivered = {}
    for number in range(len(reader)):
        try:
            with record_boundary(f"record {number}"):
                delivered[number] = convert(reader.read(number))
        except BadRecord as error:
            assert isinstance(error.reason, Reason) and 0 < len(str(error)) < 2000, error
    return delivered


class Format:
    """A file format.

    ``check`` is called if the reader accepts a changed file. By default the records must be those of the valid files.
    """

    name = ""
    targets: tuple[str, ...] = ()  # files that are changed

    def make(self, folder: Path, seed: int) -> None:
        raise NotImplementedError

    def after_change(self, folder: Path) -> None:
        """Update whatever a writer of a hostile file would also update."""

    def read(self, folder: Path) -> Delivered:
        raise NotImplementedError

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for name, content in delivered.items():
            assert valid.get(name) == content, f"record {name} differs"


def copy_files(source: Path, target: Path) -> None:
    """Replace the folder ``target`` by a copy of ``source``, with modification times."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
