"""The checksums of a folder's files: ``checksums.sha256``, which ``sha256sum --check`` reads as well.

The last line, a comment for ``sha256sum``, is the checksum of the lines before it, so that the list is guarded too.
"""

import hashlib
from pathlib import Path

from mmf_flava.errors import UserError

CHECKSUMS = "checksums.sha256"


class Damaged(UserError):
    """A file is not what its checksum says, or is not there."""


def seal(folder: Path) -> None:
    """Writes the checksums of all files of ``folder`` beside them."""
    files = sorted(file for file in folder.iterdir() if file.name != CHECKSUMS)
    lines = b"".join(f"{sha256(file)}  {file.name}\n".encode() for file in files)
    (folder / CHECKSUMS).write_bytes(_guarded(lines))


def verify(folder: Path) -> None:
    """Returns if every file that was sealed is there and as it was.

    Raises:
        Damaged: the first that is not, named.
    """
    sealed = folder / CHECKSUMS
    if not sealed.is_file():
        raise Damaged(f"{folder} is no whole checkpoint: it has no {CHECKSUMS}.")
    content = _read(sealed)
    lines = content.splitlines(keepends=True)[:-1]
    if content != _guarded(b"".join(lines)):
        raise Damaged(f"{sealed} is damaged: its last line is not the checksum of those before.")
    for line in lines:
        _compare(folder, line)


def verify_file(file: Path) -> None:
    """Returns if ``file`` is what a list of checksums beside it says, or if none names it.

    Raises:
        Damaged: it is something else.
    """
    sealed = file.parent / CHECKSUMS
    for line in _read(sealed).splitlines() if sealed.is_file() else ():
        if line.partition(b"  ")[2] == file.name.encode():
            _compare(file.parent, line)


def sha256(file: Path) -> str:
    """Hexadecimal, of a file's content."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _compare(folder: Path, line: bytes) -> None:
    expected, _, name = line.decode(errors="replace").strip().partition("  ")
    file = folder / Path(name).name
    try:
        found = sha256(file)
    except FileNotFoundError:
        raise Damaged(f"{file} is missing.") from None
    except OSError as error:
        raise Damaged(f"{file} cannot be read: {error.strerror}.") from None
    if found != expected:
        raise Damaged(f"{file} is damaged: its sha256 is not the one in {CHECKSUMS}.")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Damaged(f"{file} cannot be read: {error.strerror}.") from None


def _guarded(lines: bytes) -> bytes:
    return lines + f"# sha256 of the lines above: {hashlib.sha256(lines).hexdigest()}\n".encode()
