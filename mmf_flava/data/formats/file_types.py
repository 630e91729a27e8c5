"""The type of a file by its content, whatever its name is."""

import io
import re
from enum import Enum
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.source_files import open_bytes
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.npy import MAGIC as NPY
from mmf_flava.files.regular_file import open_regular_file
from mmf_flava.files.text_file import TextFile

HEAD = 1 << 16  # bytes by which the type is decided
MAX_HEAD = 1 << 26  # bytes of the first line of a JSON file
UNPRINTABLE = re.compile("[\0-\x08\x0e-\x1f]")
MAX_UNPRINTABLE = 0.05  # share of these characters in a text, which may be damaged
MAX_LINES = 100  # lines by which JSON Lines are recognised
USE = "Set data_dir to tar shards, a folder of images, or a table (CSV, TSV, JSON, parquet)."


class FileType(Enum):
    """Type of a file; its value is the name in messages."""

    JSON_LINES = "JSON Lines"
    JSON = "JSON"
    TEXT = "text"  # CSV and TSV, if it has columns
    PARQUET = "parquet"
    IMDB = "MMF imdb"
    TAR = "a tar file"
    COMPRESSED_TAR = "a compressed tar file"
    ARROW = "an Arrow file"
    IMAGE = "one image"
    EXCEL = "an Excel workbook"
    ZIP = "a zip archive"
    ARCHIVE = "an archive (7z, rar or zstd)"
    SQLITE = "an SQLite database"
    HDF5 = "an HDF5 file"
    PICKLE = "a pickle, which could execute code"
    WEB_PAGE = "a web page"
    EMPTY = "an empty file"
    BINARY = "binary data of an unknown format"

    @property
    def description(self) -> str:
        return self.value if self.value[:2] in ("a ", "an", "on", "bi") else f"{self.value} data"

    @property
    def remedy(self) -> str:
        return REMEDIES.get(self, USE)


REMEDIES = {
    FileType.EXCEL: 'Save it in Excel as "CSV UTF-8".',
    FileType.ZIP: "Unpack it, and set data_dir to its folder.",
    FileType.ARCHIVE: "Unpack it, and set data_dir to its folder.",
    FileType.IMAGE: "Set data_dir to its folder, or to a table with the paths of the images.",
    FileType.SQLITE: "Export its table as CSV.",
    FileType.HDF5: "Write its rows as CSV or parquet, e.g. with df.to_parquet(PATH).",
    FileType.PICKLE: "Write its rows as CSV or parquet, e.g. with df.to_parquet(PATH).",
    FileType.WEB_PAGE: "The server sent a page instead of the file. Download it again.",
    FileType.EMPTY: "It has no records. Write it again.",
}
MAGICS: tuple[tuple[bytes, FileType], ...] = (
    (b"PAR1", FileType.PARQUET),
    (NPY, FileType.IMDB),
    (b"ARROW1", FileType.ARROW),
    (b"\xff\xff\xff\xff", FileType.ARROW),  # the stream format, which `datasets` writes
    (b"\xff\xd8\xff", FileType.IMAGE),
    (b"\x89PNG\r\n", FileType.IMAGE),
    (b"GIF8", FileType.IMAGE),
    (b"II*\0", FileType.IMAGE),
    (b"MM\0*", FileType.IMAGE),
    (b"\xd0\xcf\x11\xe0", FileType.EXCEL),
    (b"7z\xbc\xaf", FileType.ARCHIVE),
    (b"Rar!", FileType.ARCHIVE),
    (b"\x28\xb5\x2f\xfd", FileType.ARCHIVE),
    (b"SQLite format 3", FileType.SQLITE),
    (b"\x89HDF", FileType.HDF5),
)


# types of files whose names promise them and whose content is unknown: their readers say what is damaged
PROMISED = {".npy": FileType.IMDB, ".parquet": FileType.PARQUET, ".tar": FileType.TAR, ".arrow": FileType.ARROW}
UNKNOWN = (FileType.TEXT, FileType.BINARY, FileType.PICKLE)


def file_type(path: Path) -> FileType:
    """Return the type of a file, compressed with gzip, bzip2 or xz or not.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        UserError: the compressed data are damaged.
    """
    with open_regular_file(path) as raw:
        start = raw.read(HEAD)
    if start.startswith(b"PK\x03\x04"):
        if b"[Content_Types].xml" in start:
            return FileType.EXCEL
        try:
            open_bytes(path).close()
        except UserError:  # several files
            return FileType.ZIP
    with open_bytes(path) as file, damaged_file(path, "compressed file", "Copy or download it again."):
        head = file.read(HEAD)
        kind = _by_first_bytes(head, compressed=not isinstance(file, io.BufferedReader))
        while kind is None and b"\n" not in head and len(head) < MAX_HEAD and (more := file.read(len(head))):
            head += more
    kind = kind or _by_text(path, head)
    return PROMISED.get(path.suffix.lower(), kind) if kind in UNKNOWN else kind


def _by_first_bytes(head: bytes, compressed: bool) -> FileType | None:
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        return FileType.EMPTY
    if head[257:262] == b"ustar" or (len(head) >= 1024 and not head.strip(b"\0")):  # zeros: the end of an archive
        return FileType.COMPRESSED_TAR if compressed else FileType.TAR
    for magic, kind in MAGICS:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return FileType.IMAGE
    return FileType.PICKLE if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") else None


def _by_text(path: Path, head: bytes) -> FileType:
    text = head.decode(TextFile(io.BufferedReader(io.BytesIO(head)), path).encoding, "replace").lstrip("\ufeff")  # type: ignore[arg-type]
    lines = [line for line in text.split("\n") if line.strip()]
    if len(head) >= HEAD and len(lines) > 1:
        lines.pop()  # the head may end within it
    start = text.lstrip()[:15].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return FileType.WEB_PAGE
    objects = [value for line in lines[:MAX_LINES] if isinstance(value := _parse(line), dict)]
    document = len(lines) == 1 and objects and _is_document(objects[0])
    if not document and objects and (2 * len(objects) > len(lines[:MAX_LINES]) or isinstance(_parse(lines[0]), dict)):
        return FileType.JSON_LINES
    if start[:1] in ("{", "["):
        return FileType.JSON
    return FileType.BINARY if len(UNPRINTABLE.findall(text)) > MAX_UNPRINTABLE * len(text) else FileType.TEXT


def _is_document(data: dict[str, Any]) -> bool:
    """Return whether an object is not one row, but MMF's {"data": [...]}, or has only lists and objects as values."""
    return "data" in data or all(isinstance(value, list | dict) for value in data.values())


def _parse(line: str) -> Any:
    try:
        return parse_json(line) if line.lstrip()[:1] == "{" else None
    except ValueError:
        return None
