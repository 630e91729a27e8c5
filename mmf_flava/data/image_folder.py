"""Records from images in class folders."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from mmf_flava.data.names import display_name, extension_of, is_hidden
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import read_regular_file

logger = logging.getLogger(__name__)

CLASS_LIST = "classes.txt"
MAX_NAMED = 5  # extensions of files that are not read in a message


class ImageFolder:
    """Records from images in ``root/<class>/**/<image>``, the layout of ImageNet's training set.

    A record's key is the path relative to ``root``, as printable text. Its fields are the image and ``cls``, the class
    number in ASCII
    (webdataset's convention). Class numbers follow ``root/classes.txt`` (one folder name per line) if that file exists,
    otherwise the sorted folder names, as in torchvision. ``number_classes`` changes the numbers, so that all splits of
    a dataset have the same numbers. Images directly in ``root`` and images in folders that are not listed have no
    ``cls``. Hidden folders are ignored. Files that are not images are counted by extension in one log message.

    Attributes:
        keys: paths relative to ``root``, as the file system has them.
        folders: sorted names of the class folders that have images.

    Raises:
        UserError: ``classes.txt`` cannot be read.
    """

    sequential = False

    def __init__(self, root: str | Path):
        self.root = Path(root)
        ignored: Counter[str] = Counter()
        self.keys = list(find_images(self.root, ignored=ignored))
        if ignored:
            where = display_name(str(self.root))
            logger.warning("%s: files that are not read: %s.", where, _format_extensions(ignored))
        self.folders = sorted({folder for key in self.keys if (folder := class_folder(key)) is not None})
        self.number_classes(read_class_list(self.root) or self.folders)

    def number_classes(self, classes: Sequence[str]) -> None:
        """Number the class folders in the order of their names in ``classes``."""
        self.classes = list(classes)
        self.class_numbers = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Record:
        return self.read(index)

    def read(self, index: int, only: Sequence[str] | None = None) -> Record:
        """Return record ``index``. If ``only`` is given, read only the fields with these extensions.

        Raises:
            BadRecord: the file cannot be read.
        """
        path = self.root / self.keys[index]
        key, extension = display_name(self.keys[index]), extension_of(self.keys[index])
        fields = {}
        if only is None or extension in only:
            try:
                fields[extension] = read_regular_file(path)
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error
        label = self.class_numbers.get(class_folder(self.keys[index]) or "")
        if label is not None and (only is None or "cls" in only):
            fields["cls"] = str(label).encode()
        return Record(key, fields)


def class_folder(key: str) -> str | None:
    """Return the class in the relative path of an image, as printable text; None for an image in the root folder."""
    return display_name(key.split(os.sep)[0]) if os.sep in key else None


def find_class_folders(root: Path) -> list[str]:
    """Return the sorted classes of the folders in ``root`` that contain images. Stops at each folder's first image."""
    names = [name for name, _ in _subfolders(os.fspath(root), set())]
    return sorted(display_name(name) for name in names if next(find_images(root, name), None) is not None)


def read_class_list(root: Path) -> list[str] | None:
    """Return the names in ``root/classes.txt``, or None if the file does not exist.

    Raises:
        UserError: the file cannot be read as UTF-8.
    """
    path = root / CLASS_LIST
    if not path.is_file():
        return None
    try:
        return [name for line in read_lines(path) if (name := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: failed to read the file as UTF-8 text ({error}). Save it as UTF-8.") from error


def _format_extensions(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {display_name(name)}" for name, count in ordered[:MAX_NAMED]]
    others = sum(count for _, count in ordered[MAX_NAMED:])
    return ", ".join(parts + [f"{others:,} others"] * bool(others))


def find_images(root: str | Path, folder: str = "", ignored: Counter[str] | None = None) -> Iterator[str]:
    """Yield the paths of the images below ``root``, or below ``root/folder``, relative to ``root``.

    The images of a folder come before the images of its subfolders, both sorted by name. Hidden files and folders and
    macOS's ``__MACOSX`` are ignored. Links to folders are followed, except links to a folder that contains the link or
    that has been visited in the same class folder.

    Args:
        ignored: counter of the extensions of other files (".txt"), which is updated.
    """
    root = os.fspath(root)
    ignored = Counter() if ignored is None else ignored
    if folder:
        yield from _find_images(root, folder, {_identity(os.path.join(root, folder))}, ignored)
        return
    yield from _images_in(root, "", ignored)
    for name, _ in _subfolders(root, set()):
        yield from _find_images(root, name, {_identity(os.path.join(root, name))}, ignored)


def _find_images(root: str, folder: str, visited: set[tuple[int, int]], ignored: Counter[str]) -> Iterator[str]:
    yield from _images_in(root, folder, ignored)
    for name, identity in _subfolders(os.path.join(root, folder), visited):
        if identity in visited:  # by another link in this folder
            continue
        visited.add(identity)
        yield from _find_images(root, os.path.join(folder, name), visited, ignored)


def _images_in(root: str, folder: str, ignored: Counter[str]) -> Iterator[str]:
    names = []
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if is_hidden(entry.name) or entry.is_dir():
                    continue
                # reading a pipe would wait for its writer; a dangling link is a bad record
                if extension_of(entry.name) in IMAGE_EXTENSIONS and (entry.is_file() or entry.is_symlink()):
                    names.append(entry.name)
                elif folder or entry.name != CLASS_LIST:
                    extension = extension_of(entry.name)
                    ignored[f".{extension}" if extension else "without extension"] += 1
    except OSError:
        return
    for name in sorted(names):
        yield os.path.join(folder, name)


def _subfolders(folder: str, visited: Set[tuple[int, int]]) -> list[tuple[str, tuple[int, int]]]:
    """Return the names and (device, inode) of the subfolders to visit, sorted by name."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name) or not entry.is_dir():
                    continue
                identity = _identity(entry.path)
                if identity not in visited and not (entry.is_symlink() and _contains(entry.path, folder)):
                    found.append((entry.name, identity))
    except OSError:
        return []
    return sorted(found)


def _contains(outer: str, inner: str) -> bool:
    outer, inner = os.path.realpath(outer), os.path.realpath(inner)
    return os.path.commonpath((outer, inner)) == outer


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
