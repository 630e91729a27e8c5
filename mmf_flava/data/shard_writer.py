"""Writing of tar shards with their index. The tar is the one that ``tarfile`` would write, byte by byte."""

import hashlib
import tarfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmf_flava.data.names import is_system_key, split_member_name
from mmf_flava.data.shard_index import write_index
from mmf_flava.data.tar_members import KEY_HEADER, TarRecords
from mmf_flava.files import atomic

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
PADDING = bytes(BLOCK)
BUFFER = 1 << 18  # bytes that are written at a time
ENCODING = ("utf-8", "surrogateescape")
# a ustar header without name, size and checksum; tarfile needs 25 microseconds for a header, joining its parts needs 1
TEMPLATE = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
NAME, SIZE, CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
BETWEEN, AFTER = TEMPLATE[NAME.stop : SIZE.start], TEMPLATE[CHECKSUM.stop :]
MTIME = TEMPLATE[SIZE.stop : CHECKSUM.start]
MAX_SIZE = 8**11 - 1  # bytes; larger members need a pax header
CONSTANT = sum(BETWEEN) + sum(MTIME) + sum(AFTER) + 8 * ord(" ")  # the checksum counts as blanks


class ShardWriter:
    """Context manager that writes one tar shard and its index atomically.

    The file gets its final name when it is complete and is deleted after an exception. It contains no timestamps or
    user names, so equal records give identical files. The index is made of what was written, unless a name needs a pax
    header: such a shard is scanned.

    Attributes:
        count: number of records that were written.
        sha256: hash of the file in hexadecimal digits, from ``close`` on.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.count, self.sha256 = 0, ""
        self._keys: set[str] = set()
        self._records: TarRecords | None = {}
        self._offset, self._written = 0, 0
        self._parts: list[bytes] = []  # of the file from byte ``_written`` on
        self._hash = hashlib.sha256()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic.replace_file(self.path))
            self._file = stack.enter_context(open(temporary, "wb"))
            self._files = stack.pop_all()

    def write(self, key: str, fields: dict[str, bytes]) -> None:
        """Append one record. The key is any text without NUL; "#" and a number are appended to a duplicate."""
        key = self._unused(key)
        # tar members end the key at its first dot, and hidden names are not read
        is_name = split_member_name(f"{key}.x")[0] == key and not is_system_key(key)
        name, pax = (key, {}) if is_name else (self._unused(f"record-{self.count:09d}"), {KEY_HEADER: key})
        entries = {}
        for extension, data in fields.items():
            header = None if pax else plain_header(f"{name}.{extension}", len(data))
            if header is None or not _is_extension(extension):
                self._records = None
                header = header or pax_header(f"{name}.{extension}", len(data), pax)
            start, size = self._offset + len(header), len(data)
            entries[extension] = start, size, zlib.crc32(data)
            self._parts += header, data, PADDING[: -size % BLOCK]
            self._offset, pax = start + size + -size % BLOCK, {}
        if self._offset - self._written >= BUFFER:
            self._flush()
        if self._records is not None and entries:
            self._records[key] = dict(sorted(entries.items()))
        self.count += 1

    def _unused(self, key: str) -> str:
        """Return ``key``, with a number if it is used, and mark it as used."""
        unused, number = key, self.count
        while unused in self._keys:
            unused, number = f"{key}#{number}", number + 1
        self._keys.add(unused)
        return unused

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._file.write(data)
        self._hash.update(data)
        self._parts, self._written = [], self._offset

    def close(self) -> None:
        end = self._offset + 2 * BLOCK
        self._parts.append(bytes(2 * BLOCK + -end % RECORD))
        with self._files:
            self._flush()
        self.sha256 = self._hash.hexdigest()
        write_index(self.path, self._records)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._files.__exit__(kind, *details)


def _is_extension(extension: str) -> bool:
    """Return whether the scan of a tar returns this extension as it is."""
    return extension.replace(".", "").replace("_", "").isalnum() and extension == extension.lower()


def plain_header(name: str, size: int) -> bytes | None:
    """Return the header of a member; None if the name or the size needs a pax header."""
    encoded = name.encode(*ENCODING)
    if len(encoded) > NAME.stop or not name.isascii() or size > MAX_SIZE:
        return None
    octal = b"%011o\0" % size
    checksum = b"%06o\0 " % (CONSTANT + sum(encoded) + sum(octal))
    return b"".join((encoded.ljust(NAME.stop, b"\0"), BETWEEN, octal, MTIME, checksum, AFTER))


def pax_header(name: str, size: int, pax: dict[str, str]) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers = size, pax
    return member.tobuf(tarfile.PAX_FORMAT, *ENCODING)
