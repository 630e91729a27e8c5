"""Scanning of tar shards: the records of a tar file, with the byte range and checksum of every field."""

import io
import os
import posixpath
import re
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
ADLER_MODULUS = 65521
OCTAL = re.compile(rb"([0-7]+)[\0 ]")
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
            for member in _members(file):
                name = member.name
                if member.isfile() and not member.issparse():  # the bytes of sparse members are not contiguous
                    checksum = _crc32(file, member.offset_data, member.size)
                    entry: Entry | str = (member.offset_data, min(member.size, MAX_SIZE), checksum)
                elif member.islnk():
                    entry = member.linkname
                elif member.issym():
                    entry = posixpath.join(posixpath.dirname(name), member.linkname)
                else:
                    continue
                members.setdefault(name, entry)
                key, extension = split_member_name(name)
                if not is_system_key(key) and "\0" not in name:
                    fields.setdefault(key, {}).setdefault(extension, name)
                    if KEY_HEADER in member.pax_headers and "\0" not in member.pax_headers[KEY_HEADER]:
                        keys.setdefault(key, member.pax_headers[KEY_HEADER])
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


def _members(file: "_BoundedFile") -> Iterator[tarfile.TarInfo]:
    offset = 0
    while (member := _plain_member(file, offset)) is not None:
        yield member
        offset = member.offset_data + -(-member.size // BLOCK) * BLOCK
    file.seek(offset)  # the first member that is not plain, and all members after it
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            if member.size < 0:  # the next header would be before this one
                raise tarfile.ReadError("negative size of a member")
            yield member
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members
        # tarfile takes a damaged header for the end of the tar; only zeros follow the real end
        file.seek(tar.offset)  # type: ignore[attr-defined]
        while rest := file.read(CHUNK):
            if any(rest):
                raise tarfile.ReadError("damaged header, or another tar after the end")


def _plain_member(file: "_BoundedFile", offset: int) -> tarfile.TarInfo | None:
    """Return the file whose header is at ``offset``, as tarfile would; None if tarfile must read it.

    tarfile needs 25 microseconds per header, twice for those of webdataset's writer, which store times in pax headers.
    """
    header = os.pread(file.fileno(), 3 * BLOCK, offset)
    if header[156:157] == b"x" and (pax := _plain_size(header)) is not None and pax <= BLOCK:
        if not TIMES.fullmatch(header, BLOCK, BLOCK + pax):
            return None
        offset, header = offset + 2 * BLOCK, header[2 * BLOCK :]
    size = _plain_size(header)
    name = header[:100].partition(b"\0")[0]
    if size is None or header[156:157] not in b"0\0" or header[345:346] != b"\0" or name.endswith(b"/"):
        return None
    if offset + BLOCK + size > file.size:  # truncated
        return None
    member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    member.size, member.offset_data = size, offset + BLOCK
    return member


def _plain_size(header: bytes) -> int | None:
    """Return the size in a header in octal digits; None if the header is not valid, or in another notation."""
    size, checksum = OCTAL.match(header, 124, 136), OCTAL.match(header, 148, 156)
    if size is None or checksum is None or len(header) < BLOCK:
        return None
    # the checksum counts as blanks; Adler-32 is a faster sum of bytes, modulo a prime number
    total = int(checksum[1], 8) + sum(header[148:156]) - 8 * ord(" ")
    if zlib.adler32(header[:BLOCK]) & 0xFFFF != (total + 1) % ADLER_MODULUS:
        return None
    return int(size[1], 8)


def _crc32(file: "_BoundedFile", offset: int, size: int) -> int:
    """Return the CRC-32 of a byte range, up to the end of the file. Does not change the position in the file."""
    if size <= CHUNK:
        return zlib.crc32(os.pread(file.fileno(), size, offset))
    checksum = 0
    for start in range(offset, min(offset + size, file.size), CHUNK):
        data = os.pread(file.fileno(), min(CHUNK, offset + size - start), start)
        checksum = zlib.crc32(data, checksum)
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

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= CHUNK:
            return super().read(size)
        rest = max(self.size - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return super().seek(min(offset, self.size) if whence == os.SEEK_SET else offset, whence)
