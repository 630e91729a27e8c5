"""Records from images in class folders."""

import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError

CLASS_LIST = "classes.txt"
SYSTEM_FOLDERS = ("__MACOSX",)  # added to zip files by macOS


class ImageFolder:
    """Records from images in ``root/<class>/**/<image>``, the layout of ImageNet's training set.

    A record's key is the path relative to ``root``. Its fields are the image and ``cls``, the class number in ASCII
    (webdataset's convention). Class numbers follow ``root/classes.txt`` (one folder name per line) if that file exists,
    otherwise the sorted folder names, as in torchvision. ``number_classes`` changes the numbers, so that all splits of
    a dataset have the same numbers. Images directly in ``root`` and images in folders that are not listed have no
    ``cls``. Hidden folders are ignored.

    Raises:
        UserError: ``classes.txt`` cannot be read.
    """

    sequential = False

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.keys = list(find_images(self.root))
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
        key = self.keys[index]
        extension = key.rpartition(".")[2].lower()
        fields = {}
        if only is None or extension in only:
            try:
                fields[extension] = (self.root / key).read_bytes()
            except OSError as error:
                raise BadRecord(Reason.VANISHED, f"{self.root / key} cannot be read: {error}", key) from error
        label = self.class_numbers.get(class_folder(key) or "")
        if label is not None and (only is None or "cls" in only):
            fields["cls"] = str(label).encode()
        return Record(key, fields)


def class_folder(key: str) -> str | None:
    """Return the class folder in the relative path of an image; None for an image directly in the root folder."""
    return key.split(os.sep)[0] if os.sep in key else None


def find_class_folders(root: Path) -> list[str]:
    """Return the sorted names of the folders in ``root`` that contain images. Stops at each folder's first image."""
    names = [name for name, _ in _subfolders(os.fspath(root), set())]
    return [name for name in names if next(find_images(root, name), None) is not None]


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


def find_images(root: str | Path, folder: str = "") -> Iterator[str]:
    """Yield the paths of the images below ``root``, or below ``root/folder``, relative to ``root``.

    The images of a folder come before the images of its subfolders, both sorted by name. Hidden files and folders and
    macOS's ``__MACOSX`` are ignored. Links to folders are followed, except links to a folder that contains the link or
    that has been visited in the same class folder.
    """
    root = os.fspath(root)
    if folder:
        yield from _find_images(root, folder, {_identity(os.path.join(root, folder))})
        return
    yield from _images_in(root, "")
    for name, _ in _subfolders(root, set()):
        yield from _find_images(root, name, {_identity(os.path.join(root, name))})


def _find_images(root: str, folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    yield from _images_in(root, folder)
    for name, identity in _subfolders(os.path.join(root, folder), visited):
        if identity in visited:  # by another link in this folder
            continue
        visited.add(identity)
        yield from _find_images(root, os.path.join(folder, name), visited)


def _images_in(root: str, folder: str) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            names = sorted(entry.name for entry in entries if _is_image(entry))
    except OSError:
        return
    for name in names:
        yield os.path.join(folder, name)


def _is_image(entry: os.DirEntry[str]) -> bool:
    has_extension = entry.name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
    return has_extension and not is_hidden(entry.name) and not entry.is_dir()


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


def is_hidden(name: str) -> bool:
    """Return whether a file or folder name is hidden (``.ipynb_checkpoints``, macOS's ``._1.jpg``) or ``__MACOSX``."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _contains(outer: str, inner: str) -> bool:
    outer, inner = os.path.realpath(outer), os.path.realpath(inner)
    return os.path.commonpath((outer, inner)) == outer


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
