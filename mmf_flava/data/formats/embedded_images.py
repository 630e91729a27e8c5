"""Records from parquet and Arrow files whose rows contain the images, or their paths, see ``arrow_files``."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from mmf_flava.data.annotations import clean_text
from mmf_flava.data.formats.arrow_files import ArrowFile, DamagedRow, find_arrow_files
from mmf_flava.data.formats.columns import Columns
from mmf_flava.data.names import extension_of
from mmf_flava.data.prepare.imagenet import SIGNATURES
from mmf_flava.data.prepare.row_tasks import RowResult
from mmf_flava.data.prepare.rows import BadRow, convert_row
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.files.regular_file import read_regular_file

SAMPLED_ROWS = 1000  # rows by which it is decided whether images are embedded
DAMAGED = "damaged file"  # reason that is counted


class EmbeddedImages:
    """The rows of parquet and Arrow files as records: the image and ``json`` {"captions", "label", "split"}.

    A label with class names is the name in ``json``, and its number is ``cls``. A record's key is its id, else the path
    in the image's struct, else the number of the row.

    Args:
        path: a file or folder, see ``find_arrow_files``.
        columns: value of the config key ``columns``.
        images: folder of relative paths; None: the folder of each file.
        images_required: whether rows without an image are left out.

    Raises:
        UserError: there are no files, all are damaged, or the columns are not recognised.
    """

    unit = "row"

    def __init__(
        self, path: Path, columns: Mapping[str, Any] | None, images: Path | None = None, images_required: bool = True
    ):
        self.path, self.images, self.images_required = path, images, images_required
        self.files, self.damaged = open_files(path)
        self.roles = [_Roles(file, columns, images_required) for file in self.files]
        self.classes = list(dict.fromkeys(name for roles in self.roles for name in roles.classes))
        parquet = all(file.is_parquet for file in self.files)
        self.kind = "parquet with images" if parquet else "Arrow files of `datasets`"
        self.chosen = self.roles[0].chosen
        known = [file.rows for file in self.files]
        self.rows = None if None in known else sum(known) + len(self.damaged)  # type: ignore[arg-type]

    def results(self, work: Path, first: int) -> Iterator[RowResult]:
        """Yield the results of the rows from row ``first`` on, see ``ShardPreparation``."""
        for file, roles in zip(self.files, self.roles, strict=True):
            start = min(first, file.rows or 0)  # the number of rows of an Arrow file is unknown
            first -= start
            for row in file.read(roles.needed, start):
                if first:
                    first -= 1
                elif isinstance(row, DamagedRow):
                    yield RowResult(bad=BadRow(DAMAGED, str(row)))
                else:
                    result = convert_row(row, partial(self._record, file=file, roles=roles))
                    yield RowResult(bad=result) if isinstance(result, BadRow) else result
        yield from (RowResult(bad=BadRow(DAMAGED, message)) for message in self.damaged)

    def _record(self, row: Mapping[str, Any], file: ArrowFile, roles: "_Roles") -> RowResult:
        data, name = self._image(roles.image, row, file)
        _, captions, label, key, split = roles.columns.entry(row)
        if data is None and self.images_required:
            return RowResult(dropped=Reason.NO_IMAGE, unmatched=f"{roles.image} is null")
        if data == b"":
            return RowResult(dropped=Reason.EMPTY_IMAGE, unmatched=f"{roles.image} is empty")
        fields = {}
        if data is not None:
            extension = image_extension(data, name)
            if extension is None:
                return RowResult(dropped=Reason.NOT_AN_IMAGE, unmatched=f"{roles.image} starts with {data[:16]!r}")
            fields[extension] = data
        if roles.classes and type(label) is int:
            problem = f"label {label}, but there are {len(roles.classes)} class names"
            return RowResult(dropped=Reason.UNKNOWN_LABEL, unmatched=problem)
        annotation = {"captions": captions, "label": label, "split": split or file.split}
        present = {key: value for key, value in annotation.items() if value is not None}
        fields["json"] = json.dumps(present, default=str).encode()
        if roles.classes and isinstance(label, str):
            fields["cls"] = str(roles.classes.index(label)).encode()
        return RowResult(fields, {"images": int(data is not None)}, key=clean_text(key or name))

    def _image(self, column: str | None, row: Mapping[str, Any], file: ArrowFile) -> tuple[bytes | None, str]:
        """Return the bytes of an image and its path, if any."""
        value = row[column] if column else None
        data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
        if isinstance(data, str):
            data, name = None, data
        if not isinstance(data, bytes | None) or not isinstance(name, str | None):
            raise ValueError(f"{column} is neither bytes nor a path")
        if data is not None or not name:
            return data, name or ""
        path = (self.images or file.path.parent) / name
        try:
            return read_regular_file(path), name
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error.strerror}", name) from error


class _Roles:
    """The columns of one file: which has the image, and those of ``Columns``; and the class names of the label."""

    def __init__(self, file: ArrowFile, given: Mapping[str, Any] | None, images_required: bool):
        given = dict(given or {})
        others = [name for name in file.columns if not re.fullmatch(r"__index_level_\d+__", name)]  # of pandas
        self.image = _image_column(file, others, given, images_required)
        embedded = {*file.image_columns()}
        found = [name for name in others if name not in embedded]
        self.columns = Columns(file.path, found, {**given, "image": None}, images_required=False)
        for role in filter(self.columns.is_ambiguous, ("caption", "label")):
            self.columns.require(role)
        used = [name for names in self.columns.chosen.values() for name in names]
        columns = [name for names in self.columns.names.values() for name in names if name in found]
        self.needed = list(dict.fromkeys([*([self.image] if self.image else []), *used, *columns]))
        label = self.columns.chosen["label"]
        self.classes = file.class_names(label[0]) if label else ()
        image = f"image: {self.image}, " if self.image else ""
        self.chosen = image + self.columns.format_chosen()


def _image_column(file: ArrowFile, columns: list[str], given: Mapping[str, Any], required: bool) -> str | None:
    """Return the column of the images: of bytes, else of paths; None if there is none and none is required."""
    if "image" in given:
        chosen = Columns(file.path, columns, {"image": given["image"]}).chosen["image"]
        return chosen[0] if chosen else None
    embedded = file.image_columns()
    by_name = Columns(file.path, embedded or columns).chosen["image"]
    formats = [name for name in embedded if name.lower() in IMAGE_EXTENSIONS]  # img2dataset's column is its format
    if len(embedded) == 1 or by_name or formats:
        return (*by_name, *formats, *embedded)[0]
    if not required:
        return None
    names = ", ".join(columns)
    example = (embedded or columns or ["NAME"])[0]
    problem = f"several columns have bytes: {', '.join(embedded)}" if embedded else "no column has images"
    raise UserError(
        f"{file.path}: {problem}. The columns are {names}. Write which one has the images, e.g. "
        f"columns: {{image: {example}}}."
    )


def open_files(path: Path) -> tuple[list[ArrowFile], list[str]]:
    """Open the parquet and Arrow files at ``path``; return them and the errors of the files that are damaged.

    Raises:
        UserError: there are no files, or all are damaged.
    """
    files, errors = [], []
    for file, split in find_arrow_files(path):
        try:
            files.append(ArrowFile(file, split, file.parent / "dataset_info.json"))
        except UserError as error:
            errors.append(str(error))
        except OSError as error:
            errors.append(f"{file} cannot be read ({error.strerror}). Download or write it again.")
    if not files:
        raise UserError(errors[0] if errors else f"{path}: no parquet or Arrow files were found. Correct the path.")
    return files, errors


def has_image_bytes(path: Path, columns: Mapping[str, Any] | None = None) -> bool:
    """Return whether the first parquet or Arrow file at ``path`` contains images, and not only their paths."""
    files, _ = open_files(path)
    embedded = files[0].image_columns()
    if "image" in (columns or {}):
        embedded = [name for name in embedded if name.casefold() == str(columns["image"]).casefold()]  # type: ignore[index]
    if not embedded:
        return False
    rows = islice(files[0].read(embedded), SAMPLED_ROWS)
    values = [value for row in rows if isinstance(row, dict) for value in row.values()]
    return any(value.get("bytes") is not None if isinstance(value, dict) else value is not None for value in values)


def image_extension(data: bytes, name: str = "") -> str | None:
    """Return the file extension of an image by its content, or None if it is not an image."""
    found = next((kind for kind, start in SIGNATURES.items() if re.match(start, data, re.DOTALL)), None)
    if found is not None:
        return found
    try:
        with Image.open(io.BytesIO(data)):
            return extension_of(name) if extension_of(name) in IMAGE_EXTENSIONS else IMAGE_EXTENSIONS[0]
    except Exception:  # Pillow raises many types for bytes that are no image
        return None
