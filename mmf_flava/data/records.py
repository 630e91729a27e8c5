"""Opens records wherever they lie: tar shards, a folder of images sorted into class folders, or a list of images."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path

from mmf_flava.data.image_list import LISTS, ImageList
from mmf_flava.data.indexing import Shard
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record, Records
from mmf_flava.data.remote_shard import remote_shards
from mmf_flava.data.shards import ShardReader, shard_paths
from mmf_flava.errors import UserError
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import is_remote


class ImageFolder:
    """``root/<class>/**/<image>``, the layout of ImageNet's training set, as records.

    The key is the path below ``root``; the parts are the image and ``cls``, the class number in ASCII (webdataset's
    convention). Classes are numbered in sorted order, as torchvision does, or in the order of ``root/classes.txt``
    (one folder name a line) where that file exists. Images directly in ``root`` have no ``cls``.
    """

    sequential = False

    def __init__(self, root: str | Path):
        self.root = Path(root)
        found = []
        for folder, subfolders, files in os.walk(self.root, followlinks=True):
            subfolders.sort()
            below = os.path.relpath(folder, self.root)
            found += [
                os.path.normpath(os.path.join(below, name))
                for name in sorted(files)
                if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
            ]
        self.keys = found
        listing = self.root / "classes.txt"
        if listing.is_file():
            self.classes = listing.read_text(encoding="utf-8").split("\n")
            self.classes = [name for name in self.classes if name]
        else:
            self.classes = sorted({key.split(os.sep)[0] for key in found if os.sep in key})
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Record ``index``; with ``only``, just the parts of these extensions. Raises BadRecord if the file is gone."""
        key = self.keys[index]
        extension = key.rpartition(".")[2].lower()
        parts = {}
        if only is None or extension in only:
            try:
                parts[extension] = (self.root / key).read_bytes()
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{self.root / key} cannot be read: {error}", key) from error
        number = self._numbers.get(key.split(os.sep)[0]) if os.sep in key else None
        if number is not None and (only is None or "cls" in only):
            parts["cls"] = str(number).encode()
        return Record(key, parts)


class Concatenated:
    """Several readers one after another."""

    def __init__(self, readers: Sequence[Records]):
        self.readers = list(readers)
        self.sequential = all(reader.sequential for reader in readers)
        self.remote = any(getattr(reader, "remote", False) for reader in readers)
        self._starts = [0, *accumulate(map(len, self.readers))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        reader, inside = self.locate(index)
        return reader.read(inside, only)

    def locate(self, index: int) -> tuple[Records, int]:
        """The reader that holds record ``index``, and its number in there."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return self.readers[number], index - self._starts[number]


def joined(readers: Sequence[Records]) -> Records:
    """Readers one after another; neighbouring shards come under one reader, which bounds the files that are open."""
    found: list[Records] = []
    for _, group in groupby(readers, lambda reader: isinstance(reader, ShardReader)):
        neighbours = list(group)
        paths = [path for reader in neighbours if isinstance(reader, ShardReader) for path in reader.paths]
        found += [ShardReader(paths)] if paths else neighbours
    return found[0] if len(found) == 1 else Concatenated(found)


def open_records(
    paths: str | Path | Sequence[str | Path], cache: FileCache | None = None, images: str | Path | None = None
) -> Records:
    """The records at one path or at several, in order.

    Args:
        paths: each a ``.tar`` file, a glob of tar files, a folder of tar files, a folder of images, a list of images,
            or the address (http, https, s3) of a tar file; braces name several tar files, as in ``{00000..00099}.tar``.
        cache: where copies of remote shards stay; see ``remote_shards``.
        images: folder of the images that lists name; None: each list's own folder.

    Raises:
        UserError: a path holds neither shards nor images; it names the path and what was looked for.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    readers: list[Records] = []
    shards: list[Shard] = []
    for path in listed:
        found: Sequence[Shard] = remote_shards(str(path), cache) if is_remote(path) else shard_paths(path)
        if found:
            shards += found
            continue
        if shards:
            readers.append(ShardReader(shards))
            shards = []
        readers.append(_open_files(Path(path), images))
    if shards:
        readers.append(ShardReader(shards))
    if not readers:
        raise UserError("No path of records was given: list tar shards, image folders or lists of images.")
    return readers[0] if len(readers) == 1 else Concatenated(readers)


def text_bytes(records: Records, index: int) -> int:
    """About how long a record's captions are: the bytes of ``txt``, else ``json``, by its index; 0 where unknown."""
    reader, inside = records.locate(index) if isinstance(records, Concatenated) else (records, index)
    if isinstance(reader, ImageList):
        return reader.line_bytes(inside)
    if not isinstance(reader, ShardReader):
        return 0
    try:
        _, parts = reader.checksums(inside, ("txt", "json"))
    except BadRecord:
        return 0
    return next((parts[name][0] for name in ("txt", "json") if name in parts), 0)


def _open_files(path: Path, images: str | Path | None) -> ImageFolder | ImageList:
    looked_for = (
        f"looked for *.tar shards, for images ({', '.join(IMAGE_EXTENSIONS)}) in class folders and for lists of images "
        "(.jsonl, .json)"
    )
    if not path.is_dir():
        if path.suffix.lower() in LISTS:
            return ImageList(path, images)
        why = "it is another kind of file" if path.exists() else "it does not exist"
        raise UserError(f"There are no records at {path}: {why}; {looked_for}.")
    folder = ImageFolder(path)
    if not len(folder):
        raise UserError(f"There are no records in {path}: {looked_for}.")
    return folder
