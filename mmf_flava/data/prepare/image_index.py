"""Index of many images in one file: from the hash of a URL or file name to the place of the image.

Each task writes a run, the entries of a part of the images. The runs are merged into one file:

    header     ``Header``: magic, bits of a prefix b, number of entries, bytes of names, bytes of examples; CRC-32 of
               the header, the examples and the starts
    examples   the first URLs or names, as a JSON list
    starts     2**b + 1 times u64: number of the first entry whose digest begins with each prefix of b bits
    entries    ``ENTRY``, sorted by digest
    names      the paths of image files

A lookup reads one range of about 32 entries. Memory use is that of the starts, at most 8 MB, for any number of images;
merging holds one part of the digests in memory. All numbers are little-endian, but digests are compared as bytes.
"""

import hashlib
import itertools
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.random_access import RandomAccessFile

MAGIC = b"mmf_flava images"
HEADER = struct.Struct("<16sIQQII")
ENTRY = struct.Struct("<12sIQIIB3x")
FIELDS = [("high", ">u8"), ("low", ">u4"), ("container", "<u4"), ("offset", "<u8"), ("size", "<u4")]
DTYPE = np.dtype([*FIELDS, ("checksum", "<u4"), ("kind", "u1"), ("unused", "V3")])
EXAMPLES = 3
PER_PREFIX = 32  # entries with the same prefix
RUN_BITS, MAX_BITS = 8, 20  # of the prefix
PART = 1 << 21  # entries that are sorted at a time


class Place(NamedTuple):
    """Place of an image: a byte range of a file.

    Attributes:
        container: number of the tar shard; for image files 0.
        offset, size: byte range in the shard; for image files that of the path in the names.
        checksum: CRC-32 of the image; for image files 0.
        kind: number of the extension in ``IMAGE_EXTENSIONS``; for image files 0.
    """

    container: int
    offset: int
    size: int
    checksum: int = 0
    kind: int = 0


class Run:
    """Entries of a part of the images, in memory until ``write``. Of equal keys, the first is used."""

    def __init__(self) -> None:
        self.examples: list[str] = []
        self._entries: list[bytes] = []
        self._names = bytearray()

    def add(self, key: str, place: Place, example: str = "") -> None:
        """Add an image.

        Args:
            example: what messages show; empty: the key.
        """
        if len(self.examples) < EXAMPLES and (example or key) not in self.examples:
            self.examples.append(example or key)
        self._entries.append(ENTRY.pack(digest(key), *place))

    def add_name(self, path: str) -> Place:
        """Store the path of an image file, and return its place."""
        name = os.fsencode(path)
        self._names += name
        return Place(0, len(self._names) - len(name), len(name))

    def write(self, path: Path) -> None:
        """Write the run to a file, sorted by digest."""
        entries = _sort(np.frombuffer(b"".join(self._entries), DTYPE))
        _write(path, [entries], len(entries), self.examples, [bytes(self._names)])


class ImageIndex:
    """A run, or the merged index.

    Attributes:
        examples: the first URLs or names.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, path: Path):
        self.path, self._file = path, RandomAccessFile(path)
        header = self._file.read(0, HEADER.size)
        if len(header) != HEADER.size or not header.startswith(MAGIC):
            raise self._damaged()
        _, self._bits, self.count, self.names_bytes, examples_bytes, checksum = HEADER.unpack(header)
        starts_bytes = 8 * ((1 << min(self._bits, MAX_BITS)) + 1)
        tables = self._file.read(HEADER.size, min(examples_bytes, path.stat().st_size) + starts_bytes)
        self._entries = HEADER.size + len(tables)
        self._names = self._entries + self.count * ENTRY.size
        if _checksum(header, tables) != checksum or path.stat().st_size != self._names + self.names_bytes:
            raise self._damaged()
        self.examples: list[str] = json.loads(tables[:examples_bytes])
        starts = np.frombuffer(tables[examples_bytes:], "<u8")
        self._starts = starts.astype(np.uint64).data  # its items are integers of Python

    def find(self, key: str) -> Place | None:
        """Return the place of an image by its URL or name; None if there is none."""
        wanted = digest(key)
        prefix = int.from_bytes(wanted[:8]) >> (64 - self._bits)
        first, end = self._starts[prefix], self._starts[prefix + 1]
        data = self._file.read(self._entries + first * ENTRY.size, (end - first) * ENTRY.size)
        position = data.find(wanted)
        while position % ENTRY.size:  # the bytes of the digest are elsewhere in an entry; -1 is no multiple either
            if position < 0:
                return None
            position = data.find(wanted, position + 1)
        return Place(*ENTRY.unpack_from(data, position)[1:])

    def name(self, place: Place) -> str:
        """Return the path of an image file."""
        return os.fsdecode(self._file.read(self._names + place.offset, place.size))

    def names(self) -> bytes:
        """Return all names."""
        return self._file.read(self._names, self.names_bytes)

    def part(self, number: int, bits: int) -> np.ndarray:
        """Return the entries whose digests begin with the ``bits`` bits of ``number``."""
        step = 1 << (self._bits - bits)
        first, end = (self._starts[(number + side) * step] for side in (0, 1))
        data = self._file.read(self._entries + first * ENTRY.size, (end - first) * ENTRY.size)
        return np.frombuffer(bytearray(data), DTYPE)

    def close(self) -> None:
        """Close the file. The next read opens it again."""
        self._file.close()

    def _damaged(self) -> UserError:
        return UserError(f"{self.path} is damaged. Delete its folder and prepare the data again.")


def merge_runs(runs: Sequence[Path], path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Merge runs, whose order decides which of equal keys is used, into one index.

    Args:
        check: function that is called between parts, and may raise an exception to end the merge.

    Raises:
        UserError: a run is damaged.
    """
    indexes = [ImageIndex(run) for run in runs]
    count = sum(index.count for index in indexes)
    bits = min(RUN_BITS, max(0, (count // PART).bit_length()))
    bases = list(itertools.accumulate((index.names_bytes for index in indexes), initial=0))

    def parts() -> Iterator[np.ndarray]:
        for number in range(1 << bits if indexes else 0):
            check()
            found = []
            for index, base in zip(indexes, bases, strict=False):
                entries = index.part(number, bits)
                entries["offset"] += base
                found.append(entries.view(np.uint8))  # numpy would change the byte order of concatenated entries
                index.close()  # there may be more runs than open files
            yield _sort(np.concatenate(found).view(DTYPE))

    examples = [example for index in indexes for example in index.examples][:EXAMPLES]
    _write(path, parts(), count, examples, (index.names() for index in indexes))


def digest(key: str) -> bytes:
    """Return the 12 bytes by which a URL or file name is found."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _sort(entries: np.ndarray) -> np.ndarray:
    """Return the entries sorted by digest; of equal digests, the first."""
    entries = entries[np.lexsort((entries["low"], entries["high"]))]
    different = np.ones(len(entries), bool)
    different[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    return entries[different]


def _write(
    path: Path, parts: Iterable[np.ndarray], count: int, examples: Sequence[str], names: Iterable[bytes]
) -> None:
    """Write an index. ``count`` is the number of entries or more."""
    bits = min(MAX_BITS, max(RUN_BITS, (count // PER_PREFIX).bit_length()))
    described = json.dumps(examples).encode()
    counts = np.zeros((1 << bits) + 1, "<u8")
    with atomic.replace_file(path) as temporary, open(temporary, "wb") as file:
        file.seek(HEADER.size + len(described) + counts.nbytes)
        for entries in parts:
            prefixes = (entries["high"] >> np.uint64(64 - bits)).astype(np.int64)
            counts[1:] += np.bincount(prefixes, minlength=1 << bits).astype("<u8")
            file.write(entries.tobytes())
        names_bytes = sum(map(file.write, names))
        starts = np.cumsum(counts, dtype="<u8")
        tables = described + starts.tobytes()
        fields = MAGIC, bits, int(starts[-1]), names_bytes, len(described)
        file.seek(0)
        file.write(HEADER.pack(*fields, _checksum(HEADER.pack(*fields, 0), tables)) + tables)


def _checksum(header: bytes, tables: bytes) -> int:
    """Return the CRC-32 of the header, without its checksum, and the tables."""
    return zlib.crc32(tables, zlib.crc32(header[:-4]))
