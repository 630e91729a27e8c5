"""Archives: compressed tar files, and tar files of a folder. They contain what their unpacked folder contains.

An archive in which images have a text or a label of the same name beside them is a tar shard. Other archives are
unpacked: class folders, folders of shards, and tables with the paths of images.
"""

import gzip
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from mmf_flava.data.formats.file_types import FileType, file_type
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.names import display_name, extension_of, is_hidden, is_system_key, split_member_name
from mmf_flava.data.prepare.row_tasks import RowResult
from mmf_flava.data.prepare.rows import BadRow, convert_row
from mmf_flava.data.prepare.source_files import open_bytes
from mmf_flava.data.record import IMAGE_EXTENSIONS, Records
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError, is_out_of_resources
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

PEEKED = 64  # members by which the layout of a compressed archive is decided
ANNOTATIONS = ("txt", "json", "cls")  # fields of a record beside its image
CONTAINERS = ("csv", "tsv", "jsonl", "parquet", "arrow", "tar")  # files whose records are not members of the archive
CHUNK = 1 << 20
REMEDY = "Copy or download it again."
DAMAGED = "damaged file"  # reason that is counted
# errors of damaged archives; those of files have a number
UNREADABLE = (EOFError, tarfile.TarError, ValueError, OSError, RecursionError, zlib.error, lzma.LZMAError)

OpenRecords = Callable[[Path], Records]


def is_archive(path: Path) -> bool:
    """Return whether a file is a compressed tar file, or a tar file of class folders or of a table with its images.

    Raises:
        OSError: the file cannot be read.
    """
    kind = file_type(path)
    if kind != FileType.TAR:
        return kind == FileType.COMPRESSED_TAR
    first = list(islice(_names(path), PEEKED))
    if _has_pairs(first) or not any("/" in name for name in first):
        return _has_containers(first)
    names = list(_names(path))  # the first members of class folders are of one class
    folders = {name.rpartition("/")[0] for name in names if extension_of(name) in IMAGE_EXTENSIONS}
    return _has_containers(names) or (len(folders) > 1 and not _has_pairs(names))


def _names(path: Path) -> Iterator[str]:
    """Yield the names of the visible files in a tar file, compressed or not, up to its end or its damage."""
    with suppress(*UNREADABLE), open_bytes(path) as file:
        for _, member in _members(file):
            if member.isreg() and _is_visible(member.name):
                yield member.name


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(fileobj=file, mode="r|", errorlevel=1) as tar:
        while (member := tar.next()) is not None:
            if member.size < 0:
                raise tarfile.ReadError("negative size of a member")
            yield tar, member
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members


def _is_visible(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part != ".."]  # refused and counted where it is unpacked
    return not any(map(is_hidden, parts)) and not is_system_key(split_member_name(name)[0])


def _has_pairs(names: Sequence[str]) -> bool:
    """Return whether an image has a text or a label of the same name."""
    extensions: dict[str, set[str]] = {}
    for name in names:
        key, extension = split_member_name(name)
        extensions.setdefault(key, set()).add(extension)
    return any(found & {*IMAGE_EXTENSIONS} and found & {*ANNOTATIONS} for found in extensions.values())


def _has_containers(names: Sequence[str]) -> bool:
    return any(extension_of(name) in CONTAINERS for name in names)


class Archive:
    """The records of an archive.

    Args:
        open_records: opens the records of the unpacked folder.

    Raises:
        UserError: no member can be read.
    """

    unit, kind, chosen, rows = "record", "an archive", "", None
    classes: Sequence[str] = ()

    def __init__(self, path: Path, open_records: OpenRecords):
        self.path, self._open_records = path, open_records
        names = list(islice(_names(path), PEEKED))
        if not names:
            raise UserError(f"{path}: the archive has no files, or is damaged at its start. {REMEDY}")
        self._is_shard = _has_pairs(names) and not _has_containers(names)

    def results(self, work: Path, first: int) -> Iterator[RowResult]:
        """Yield the results of the records from record ``first`` on, see ``ShardPreparation``."""
        unpacked = work / ("archive.tar" if self._is_shard else "files")
        if not unpacked.exists():
            atomic.write_json(work / "damaged.json", self._unpack(unpacked))
        records = ShardReader([unpacked]) if self._is_shard else self._open_records(_content(unpacked))
        for number in range(first, len(records)):
            result = convert_row(number, lambda number: _copy(records, number))
            yield RowResult(bad=result) if isinstance(result, BadRow) else result
        yield from (RowResult(bad=BadRow(DAMAGED, message)) for message in read_object(work / "damaged.json")["errors"])

    def _unpack(self, target: Path) -> dict[str, list[str]]:
        """Write the tar file, or the files in it, to ``target``; return the errors of what cannot be read."""
        partial, errors = target.with_name("partial"), []
        atomic.remove(partial)
        with open_bytes(self.path) as file, tqdm(desc=f"unpacking {self.path.name}", unit="B", unit_scale=True) as bar:
            try:
                for error in _decompress(file, partial, bar) if self._is_shard else _extract(file, partial, bar):
                    errors.append(f"{self.path}: {error}")
            except UNREADABLE as error:
                if is_out_of_resources(error) or getattr(error, "filename", None) is not None:
                    raise
                errors.append(f"{self.path} is damaged ({error}): the files after the damage are missing. {REMEDY}")
        os.rename(partial, target)
        return {"errors": errors}


def _decompress(file: IO[bytes], target: Path, bar: tqdm) -> Iterator[str]:
    yield from ()
    with open(target, "wb") as output:
        while data := file.read(CHUNK):
            output.write(data)
            bar.update(len(data))


def _extract(file: IO[bytes], target: Path, bar: tqdm) -> Iterator[str]:
    """Write the visible files to the folder ``target``, and yield the errors of those that cannot be written."""
    target.mkdir()
    for tar, member in _members(file):
        path = target / member.name
        if not (member.isreg() or member.islnk() or member.issym()) or not _is_visible(member.name):
            continue
        if os.path.lexists(path):  # of duplicate members, the first is used
            continue
        try:
            if member.issparse():
                raise tarfile.TarError("a sparse file")
            tar.extract(member, target, set_attrs=False, filter="data")
            bar.update(member.size)
        except (tarfile.FilterError, tarfile.StreamError, OSError, ValueError) as error:
            if is_out_of_resources(error) or isinstance(error, EOFError | gzip.BadGzipFile):
                raise
            atomic.remove(path)
            yield f"{display_name(member.name)} cannot be unpacked ({error})"
        except BaseException:
            atomic.remove(path)  # it is incomplete
            raise


def _content(folder: Path) -> Path:
    """Return the folder in an unpacked archive in which there is more than one other folder."""
    while len(entries := list(folder.iterdir())) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        folder = entries[0]
    return folder


def _copy(records: Records, number: int) -> RowResult:
    """Return a record; the name of a class folder becomes the label in its ``json``."""
    record, reader = records.read(number), records
    while hasattr(reader, "locate"):  # concatenated records
        reader, number = reader.locate(number)
    fields = dict(record.fields)
    if isinstance(reader, ImageFolder) and "cls" in fields:
        fields["json"] = json.dumps({"captions": [], "label": reader.classes[int(fields["cls"])]}).encode()
    return RowResult(fields, {"images": int(bool(fields.keys() & {*IMAGE_EXTENSIONS}))}, key=record.key)
