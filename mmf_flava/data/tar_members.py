"""Scanning of tar shards: the records of a tar file, with the byte range and checksum of every field."""

import io
import os
import posixpath
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from mmf_flava.data.names import is_system_key, split_member_name
from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import open_regular_file

CHUNK = 1 << 20
MAX_SIZE = 1 << 62  # bytes; sizes in a tar are not limited to 64 bits
MAX_LINKS = 40  # length of a chain of links, as in Linux
KEY_HEADER = "MMF_FLAVA.key"  # pax header: the key of a record, if it cannot be the name of its members

BLOCK = tarfile.BLOCKSIZE
HEADER = struct.Struct("100s24x12s12x8ss188xs166x")  # name, size, checksum, type, prefix
TIMES = re.compile(rb"(\d+ [acm]time=[\d.]+\n)+")  # content of a pax header

Entry = tuple[int, int, int]  # offset, size and CRC-32 of a field in a tar file
TarRecords = dict[str, dict[str, Entry]]  # key -> extension -> entry


def scan_shard(path: Path) -> tuple[TarRecords, bool]:
    """Scan a tar file and return its records and whether it is truncated or damaged.

    Records are in the order in which keys first appear. Of duplicate members, the first is used. Hard and symbolic
    links to other members have the entries of these members; the fields of other links are missing. Hidden files and
    the files that macOS adds are ignored. If the shard is truncated within a field, the entry has the field's full
    size, so that reading the field raises an error. The pax header ``KEY_HEADER`` of a member replaces the key of its
    record, unless another record has this key.

    Raises:
        UserError: the file is not a tar file.
        OSError: the file cannot be read.
    """
    members: dict[str, Entry | str] = {}  # name -> entry, or name of a link's target
    fields: dict[str, dict[str, str]] = {}  # key -> extension -> name
    keys: dict[str, str] = {}  # key of the members' names -> key in the header
    truncated = False
    with _BoundedFile(path) as file:
        try:
            for name, entry, given in _members(file):
                members.setdefault(name, entry)
                key, extension = split_member_name(name)
                if (key in fields or not is_system_key(key)) and "\0" not in name:
                    fields.setdefault(key, {}).setdefault(extension, name)
                    if given is not None and "\0" not in given:
                        keys.setdefault(key, given)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # tarfile raises TarError, ValueError, RecursionError, OverflowError, ...
            if not fields:
                detail = str(error) or type(error).__name__
                raise UserError(f"{path} is not a readable tar shard ({detail}). Rebuild or remove it.") from error
            truncated = True
    _resolve_links(members)
    records: TarRecords = {}
    for key, names in fields.items():
        given = keys.get(key, key)
        records[key if given in fields or given in records else given] = {
            extension: entry
            for extension, name in sorted(names.items())
            if extension and not isinstance(entry := members[name], str)
        }
    return records, truncated


def _members(file: "_BoundedFile") -> Iterator[tuple[str, Entry | str, str | None]]:
    """Yield the name of each file and link, its entry or the name of the link's target, and the key in its header."""
    offset = 0
    while (member := _plain_member(file, offset)) is not None:
        name, start, size = member
        yield name, (start, size, _crc32(file, start, size)), None
        offset = start + -(-size // BLOCK) * BLOCK
    file.seek(offset)  # the first member that is not plain, and all members after it
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (info := tar.next()) is not None:
            if info.size < 0:  # the next header would be before this one
                raise tarfile.ReadError("negative size of a member")
            if (entry := _entry(file, info)) is not None:
                yield info.name, entry, info.pax_headers.get(KEY_HEADER)
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members
        # tarfile takes a damaged header for the end of the tar; only zeros follow the real end
        file.seek(tar.offset)  # type: ignore[attr-defined]
        while rest := file.read(CHUNK):
            if any(rest):
                raise tarfile.ReadError("damaged header, or another tar after the end")


def _entry(file: "_BoundedFile", member: tarfile.TarInfo) -> Entry | str | None:
    """Return the entry of a file, or the name of a link's target; None for other members."""
    if member.isfile() and not member.issparse():  # the bytes of sparse members are not contiguous
        checksum = _crc32(file, member.offset_data, member.size)
        return member.offset_data, min(member.size, MAX_SIZE), checksum
    if member.islnk():
        return member.linkname
    return posixpath.join(posixpath.dirname(member.name), member.linkname) if member.issym() else None


def _plain_member(file: "_BoundedFile", offset: int) -> tuple[str, int, int] | None:
    """Return (name, offset of the data, size) of the file whose header is at ``offset``, as tarfile would.

    None: tarfile must read it, which needs 25 microseconds per header, twice for those of webdataset's writer, which
    store times in pax headers.
    """
    header = _plain_header(file, offset)
    if header is not None and header[2] == b"x":
        if header[1] > BLOCK or not TIMES.fullmatch(file.view(offset + BLOCK, header[1])):
            return None
        offset += 2 * BLOCK
        header = _plain_header(file, offset)
    if header is None:
        return None
    name, size, kind = header
    if kind not in b"0\0" or name.endswith(b"/") or offset + BLOCK + size > file.size:  # truncated
        return None
    return name.decode("utf-8", "surrogateescape"), offset + BLOCK, size


def _plain_header(file: "_BoundedFile", offset: int) -> tuple[bytes, int, bytes] | None:
    """Return (name, size, type) in a header; None if it is not valid, has a prefix, or its numbers are not octal."""
    header = file.view(offset, BLOCK)
    if len(header) < BLOCK:
        return None
    name, size, checksum, kind, prefix = HEADER.unpack(header)
    # the checksum counts as blanks; Adler-32 is a faster sum of bytes, modulo a prime number
    total = (zlib.adler32(header) - 1 - sum(checksum) + 8 * ord(" ")) & 0xFFFF
    try:
        is_valid = prefix == b"\0" and _octal(checksum) == total
        return (name.partition(b"\0")[0], _octal(size), kind) if is_valid else None
    except ValueError:
        return None


def _octal(field: bytes) -> int:
    """Parse a number in octal digits, which NUL or blanks end."""
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


def _crc32(file: "_BoundedFile", offset: int, size: int) -> int:
    """Return the CRC-32 of a byte range, up to the end of the file. Does not change the position in the file."""
    checksum, end = 0, min(offset + size, file.size)
    while offset < end:
        data = file.view(offset, min(CHUNK, end - offset))
        checksum = zlib.crc32(data, checksum)
        offset += len(data) or end  # the file may have become shorter
    return checksum


def _resolve_links(members: dict[str, Entry | str]) -> None:
    """Replace links by the entries of their targets. Dangling links remain."""
    links = [name for name, entry in members.items() if isinstance(entry, str)]
    by_path: dict[str, Entry | str] = {}
    for name, entry in members.items() if links else ():
        by_path.setdefault(posixpath.normpath(name), entry)
    for name in links:
        for _ in range(MAX_LINKS):
            target = members[name]
            if not isinstance(target, str):
                break
            members[name] = by_path.get(posixpath.normpath(target), "")


class _BoundedFile(io.BufferedReader):
    """A file that is not read or positioned beyond its end: sizes in a tar may be wrong.

    ``read`` allocates memory of the requested size, and file systems limit the position.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(open_regular_file(path, buffering=0))  # type: ignore[arg-type]
        self.size = os.fstat(self.fileno()).st_size
        self._window = memoryview(bytearray(CHUNK))
        self._start = self._end = 0  # of the window in the file

    def view(self, offset: int, size: int) -> memoryview:
        """Return at most ``size`` <= CHUNK bytes, fewer at the end of the file. They change at the next call.

        Does not change the position. Reads of many members at a time are faster than one of each.
        """
        if offset < self._start or offset + size > self._end:
            self._start = offset
            self._end = offset + os.preadv(self.fileno(), [self._window], offset)
            size = min(size, self._end - offset)
        start = offset - self._start
        return self._window[start : start + size]

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= CHUNK:
            return super().read(size)
        rest = max(self.size - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return super().seek(min(offset, self.size) if whence == os.SEEK_SET else offset, whence)
