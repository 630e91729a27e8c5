"""SHA-256 checksums of a folder's files, stored in ``checksums.sha256`` in the format of ``sha256sum --check``.

The last line is the checksum of all other lines, so corruption of ``checksums.sha256`` is detected too. ``sha256sum``
treats the last line as a comment.
"""

import hashlib
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import open_regular_file, read_regular_file

CHECKSUMS = "checksums.sha256"


class CorruptFileError(UserError):
    """A file is missing, unreadable or does not match its checksum."""


def write_checksums(folder: Path) -> None:
    """Write ``checksums.sha256`` for all files of ``folder``."""
    files = sorted(file for file in folder.iterdir() if file.name != CHECKSUMS)
    lines = b"".join(f"{sha256(file)}  {file.name}\n".encode() for file in files)
    (folder / CHECKSUMS).write_bytes(_append_checksum(lines))


def verify_folder(folder: Path) -> None:
    """Verify all files that are listed in ``checksums.sha256`` of ``folder``.

    Raises:
        CorruptFileError: a file is missing or does not match its checksum; the message names the first such file.
    """
    checksums = folder / CHECKSUMS
    if not checksums.is_file():
        raise CorruptFileError(f"{folder} is not a complete checkpoint: it has no {CHECKSUMS}.")
    content = _read(checksums)
    lines = content.splitlines(keepends=True)[:-1]
    if content != _append_checksum(b"".join(lines)):
        raise CorruptFileError(f"{checksums} is corrupt: its last line is not the checksum of the other lines.")
    for line in lines:
        _verify_line(folder, line)


def verify_file(file: Path) -> None:
    """Verify one file if it is listed in ``checksums.sha256`` of its folder.

    Raises:
        CorruptFileError: the file does not match its checksum.
    """
    checksums = file.parent / CHECKSUMS
    for line in _read(checksums).splitlines() if checksums.is_file() else ():
        if line.partition(b"  ")[2] == file.name.encode():
            _verify_line(file.parent, line)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with open_regular_file(file) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]


def _verify_line(folder: Path, line: bytes) -> None:
    expected, _, name = line.decode(errors="replace").strip().partition("  ")
    file = folder / Path(name).name
    try:
        actual = sha256(file)
    except FileNotFoundError:
        raise CorruptFileError(f"{file} is missing, but {CHECKSUMS} lists it.") from None
    except OSError as error:
        raise CorruptFileError(f"{file} cannot be read: {error.strerror}.") from None
    if actual != expected:
        raise CorruptFileError(f"{file} is corrupt: its SHA-256 is {actual}, expected {expected}.")


def _read(file: Path) -> bytes:
    try:
        return read_regular_file(file)
    except OSError as error:
        raise CorruptFileError(f"{file} cannot be read: {error.strerror}.") from None


def _append_checksum(lines: bytes) -> bytes:
    return lines + f"# sha256 of the lines above: {hashlib.sha256(lines).hexdigest()}\n".encode()
