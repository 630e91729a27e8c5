"""Atomic writes: a file or folder appears under its name only when it is complete and on disk.

Content is written to a hidden path in the same folder, ``.<name>.<number>.partial``, flushed to disk and renamed. A
reader therefore sees either the old or the new content, also after a power failure. The hidden path is locked while it
is written. If the process is killed, the next write of the same file or folder deletes it.
"""

import errno
import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MAX_NAME = 200  # bytes of the file name in the hidden name; most file systems allow 255 for the entire name
ABANDONED_SECONDS = 86_400  # age after which a hidden path is deleted on file systems without locks
CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # errors of some network file systems


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Context manager: yield the path of an empty temporary file, which replaces ``path`` at the end.

    After an exception, the temporary file is deleted and ``path`` is unchanged. Devices and pipes are not replaced:
    their own path is yielded.

    Raises:
        OSError: writing failed. Its file name is ``path``, not the temporary file.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    with _temporary(path, is_folder=False) as temporary:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)


@contextmanager
def replace_folder(path: str | Path, keep: bool = False) -> Iterator[Path]:
    """Context manager: yield the path of an empty temporary folder, which replaces ``path`` at the end.

    After an exception, the temporary folder is deleted and ``path`` is unchanged. An existing folder ``path`` is first
    renamed, and deleted when the new folder has its name.

    Args:
        keep: keep the files of an existing folder that are not in the new one. The others are then replaced one by one.

    Raises:
        OSError: writing failed. Its file name is ``path``, not the temporary folder.
    """
    path = Path(path)
    with _temporary(path, is_folder=True) as temporary:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for file in [*(Path(folder, name) for name in names), Path(folder)]:
                fsync(file)
        if path.is_dir() and keep:
            for file in temporary.iterdir():
                os.replace(file, path / file.name)
            fsync(path)
            temporary.rmdir()
        elif path.is_dir():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
        fsync(path.parent)


@contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """Context manager: yield the path of an empty hidden folder next to ``path``, which is deleted at the end.

    Raises:
        OSError: the folder cannot be created. Its file name is ``path``.
    """
    with _temporary(Path(path), is_folder=True) as temporary:
        yield temporary
        remove(temporary)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically, indented by two spaces."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC_FOLDERS or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _exchange(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``, and delete the folder that was there. After an error, ``path`` is unchanged."""
    old, descriptor = _create(path, is_folder=True)
    try:
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
        remove(old)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path, is_folder: bool) -> Iterator[Path]:
    """Context manager: create and lock a hidden file or folder next to ``path``; delete it after an exception."""
    temporary, descriptor = _create(path, is_folder)
    try:
        yield temporary
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
            error.filename = str(path) + str(error.filename)[len(str(temporary)) :]
        raise
    finally:
        os.close(descriptor)


def _create(path: Path, is_folder: bool) -> tuple[Path, int]:
    """Create and lock a hidden file or folder that no other process or thread uses; return its path and descriptor."""
    name = os.fsencode(path.name)[:MAX_NAME].decode(errors="ignore")
    for number in itertools.count():
        temporary = path.with_name(f".{name}.{number}.partial")
        _remove_leftover(temporary)
        try:
            if is_folder:
                temporary.mkdir()
            else:
                temporary.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise
        with suppress(FileNotFoundError):  # another process took the new path for a leftover
            descriptor = _open(temporary)
            if _lock(descriptor, temporary) is not False:
                return temporary, descriptor
            os.close(descriptor)
    raise AssertionError


def _remove_leftover(temporary: Path) -> None:
    """Delete a hidden file or folder if the process that created it has ended."""
    try:
        descriptor = _open(temporary)
    except OSError:  # missing, or not readable by this user
        return
    try:
        locked = _lock(descriptor, temporary)
        if locked or (locked is None and time.time() - os.fstat(descriptor).st_mtime > ABANDONED_SECONDS):
            remove(temporary)
    finally:
        os.close(descriptor)


def _open(temporary: Path) -> int:
    # some network file systems only lock files that are open for writing
    return os.open(temporary, os.O_NOFOLLOW | (os.O_RDONLY if temporary.is_dir() else os.O_RDWR))


def _lock(descriptor: int, temporary: Path) -> bool | None:
    """Lock an open hidden file or folder. Return False if it is in use or no longer at its path, None without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    try:
        return os.path.samestat(os.fstat(descriptor), temporary.lstat())
    except FileNotFoundError:
        return False


def remove(path: Path) -> None:
    """Delete a file or folder, if it exists. Errors are ignored."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)
