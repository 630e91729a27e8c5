"""Records from images in folders: class folders, and images with a text or a JSON file of the same name beside them."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

from mmf_flava.data.names import display_name, extension_of, is_hidden
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason, Record
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import read_regular_file

logger = logging.getLogger(__name__)

CLASS_LIST = "classes.txt"
CAPTION_FILES = ("txt", "json")  # extensions of the files beside images, as img2dataset writes them
EXTENSIONS_BESIDE = {*CAPTION_FILES, *(name.upper() for name in CAPTION_FILES)}
MAX_NAMED = 5  # extensions of files that are not read in a message


class ImageFolder:
    """Records from images in ``root/<class>/**/<image>``, the layout of ImageNet's training set.

    A record's key is the path relative to ``root``, as printable text. Its fields are the image, ``txt`` and ``json``
    if there are such files with the image's name (``1.jpg``, ``1.txt``), and ``cls``, the class number in ASCII
    (webdataset's convention). Class numbers follow ``root/classes.txt`` (one folder name per line) if that file exists,
    otherwise the sorted folder names, as in torchvision. ``number_classes`` changes the numbers, so that all splits of
    a dataset have the same numbers. Images directly in ``root``, images in folders that are not listed, and images in
    img2dataset's folders (00000) have no ``cls``. Hidden folders are ignored. One log message has the numbers of images
    and of captions, and of the files that are not read by extension.

    Attributes:
        keys: paths relative to ``root``, as the file system has them.
        folders: sorted names of the class folders that have images.
        beside: numbers of the files beside images by extension (txt, json).

    Raises:
        UserError: ``classes.txt`` cannot be read.
    """

    sequential = False

    def __init__(self, root: str | Path):
        self.root = Path(root)
        ignored: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        self.keys = list(find_images(self.root, ignored=ignored, beside=self.beside))
        where = display_name(str(self.root))
        if ignored:
            logger.warning("%s: files that are not read: %s.", where, _format_extensions(ignored))
        folders = {folder for key in self.keys if (folder := class_folder(key)) is not None}
        self.folders = [] if self.beside["json"] and are_img2dataset_folders(folders) else sorted(folders)
        self.number_classes(read_class_list(self.root) or self.folders)
        captions = "".join(f", {count:,} .{name} files" for name, count in self.beside.items() if count)
        classes = f", {len(self.folders):,} class folders" if self.folders else ""
        logger.info("%s: %s images%s%s.", where, f"{len(self.keys):,}", captions, classes)

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
            fields[extension] = _read(path, key)
        for name in CAPTION_FILES:
            if self.beside[name] and (only is None or name in only) and _beside(path, name).exists():
                fields[name] = _read(_beside(path, name), key)
        label = self.class_numbers.get(class_folder(self.keys[index]) or "")
        if label is not None and (only is None or "cls" in only):
            fields["cls"] = str(label).encode()
        return Record(key, fields)

    def text_bytes(self, index: int) -> int:
        """Return the size in bytes of the text beside an image; 0 if there is none."""
        for name in CAPTION_FILES:
            if self.beside[name]:
                with suppress(OSError):
                    return _beside(self.root / self.keys[index], name).stat().st_size
        return 0

    def require(self, role: str) -> None:
        """Raise UserError if the images have no captions, and ``role`` is caption."""
        if role == "caption" and not self.beside.total():
            raise UserError(
                f"{self.root}: the {len(self.keys):,} images have no captions. Put a text file with its name beside "
                "each image (1.jpg, 1.txt), or set data_dir to a table with the paths of the images and their captions."
            )


def are_img2dataset_folders(names: Collection[str]) -> bool:
    """Return whether these are the names of the folders that img2dataset writes: 00000, 00001."""
    return all(len(name) >= 5 and name.isdigit() for name in names)


def _read(path: Path, key: str) -> bytes:
    try:
        return read_regular_file(path)
    except OSError as error:
        raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}", key) from error


def _beside(path: Path, extension: str) -> Path:
    found = path.with_name(f"{path.name.rpartition('.')[0]}.{extension}")
    upper = found.with_suffix(f".{extension.upper()}")
    return upper if not found.exists() and upper.exists() else found


def class_folder(key: str) -> str | None:
    """Return the class in the relative path of an image, as printable text; None for an image in the root folder."""
    return display_name(key.split(os.sep)[0]) if os.sep in key else None


def find_class_folders(root: Path) -> list[str]:
    """Return the sorted classes of the folders in ``root`` that contain images. Stops at each folder's first image."""
    firsts = {name: next(find_images(root, name), None) for name, _ in _subfolders(os.fspath(root), set())}
    first = next((key for key in firsts.values() if key is not None), None)
    if first is not None and are_img2dataset_folders(firsts) and _beside(Path(root, first), "json").is_file():
        return []
    return sorted(display_name(name) for name, key in firsts.items() if key is not None)


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


def find_images(
    root: str | Path, folder: str = "", ignored: Counter[str] | None = None, beside: Counter[str] | None = None
) -> Iterator[str]:
    """Yield the paths of the images below ``root``, or below ``root/folder``, relative to ``root``.

    The images of a folder come before the images of its subfolders, both sorted by name. Hidden files and folders and
    macOS's ``__MACOSX`` are ignored. Links to folders are followed, except links to a folder that contains the link or
    that has been visited in the same class folder.

    Args:
        ignored: counter of the extensions of other files (".zip"), which is updated.
        beside: counter of the extensions of ``CAPTION_FILES`` with the name of an image, which is updated.
    """
    root = os.fspath(root)
    counts = (Counter() if ignored is None else ignored, Counter() if beside is None else beside)
    if folder:
        yield from _find_images(root, folder, {_identity(os.path.join(root, folder))}, counts)
        return
    yield from _images_in(root, "", *counts)
    for name, _ in _subfolders(root, set()):
        yield from _find_images(root, name, {_identity(os.path.join(root, name))}, counts)


def _find_images(
    root: str, folder: str, visited: set[tuple[int, int]], counts: tuple[Counter[str], Counter[str]]
) -> Iterator[str]:
    yield from _images_in(root, folder, *counts)
    for name, identity in _subfolders(os.path.join(root, folder), visited):
        if identity in visited:  # by another link in this folder
            continue
        visited.add(identity)
        yield from _find_images(root, os.path.join(folder, name), visited, counts)


def _images_in(root: str, folder: str, ignored: Counter[str], beside: Counter[str]) -> Iterator[str]:
    names: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if is_hidden(entry.name) or entry.is_dir():
                    continue
                # reading a pipe would wait for its writer; a dangling link is a bad record
                if extension_of(entry.name) in IMAGE_EXTENSIONS and (entry.is_file() or entry.is_symlink()):
                    names.append(entry.name)
                elif folder or entry.name != CLASS_LIST:
                    others.append(entry.name)
    except OSError:
        return
    stems = {name.rpartition(".")[0] for name in names}
    for name in others:
        stem, _, extension = name.rpartition(".")
        if extension in EXTENSIONS_BESIDE and stem in stems:
            beside[extension.lower()] += 1
        else:
            ignored[f".{extension.lower()}" if stem or name[:1] == "." else "without extension"] += 1
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
