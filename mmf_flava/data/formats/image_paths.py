"""The image paths in a table: which column has them, and whether the images of the first rows exist."""

import logging
import os
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from urllib.parse import unquote

from mmf_flava.data.formats.columns import SUFFIXES, Columns
from mmf_flava.data.formats.tables import Table
from mmf_flava.data.names import display_name
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote

logger = logging.getLogger(__name__)

SAMPLED_ROWS = 100  # rows whose images must not all be missing
SEARCHED = 5  # missing images that are searched
MAX_FOLDERS = 1000  # folders that are searched for a missing image
MAX_SHOWN = 200  # characters of a path in a message


def resolve_image(root: Path, name: str) -> Path:
    """Return the path of an image.

    If there is no such file, it is as Windows writes it (``photos\\1.jpg``), without the spaces around it, or as in an
    address (``file:///photos/my%20cat.jpg``).
    """
    path = root / name
    if os.path.lexists(path):
        return path
    plain = name.strip().replace("\\", "/")
    for variant in (plain, unquote(plain.removeprefix("file://"))):
        if variant and variant != name and os.path.lexists(root / variant):
            return root / variant
    return path


def check_image_paths(table: Table, columns: Columns, root: Path) -> UserError | None:
    """Choose the column whose images exist, if several columns may have the image paths.

    Without a column of a common name, it is the only one whose values are names of image files.

    Returns:
        The error with the line to write if all images of the first rows are missing.

    Raises:
        UserError: there is no such column.
    """
    if "image" not in columns.given and not columns.chosen["image"]:
        named = [name for name in _image_names(table) if name not in chain(*columns.chosen.values())]
        if len(named) == 1:
            columns.use_image(named[0])
    if columns.images_required and table.columns:
        columns.require("image")
    candidates = [name for name in columns.names["image"] if name in table.columns]
    if not candidates:
        return None
    rows = [(n, row) for n, row in islice(table.rows(candidates), SAMPLED_ROWS) if not isinstance(row, str)]
    first: list[tuple[int, str]] = []
    for name in candidates:
        columns.use_image(name)
        images = []
        for number, row in rows:
            try:
                image = columns.entry({name: row.get(name)}).image
            except ValueError:
                continue
            if image is not None:
                images.append((number, image))
        missing = [(number, image) for number, image in images if not image_exists(root, image)]
        if len(missing) < len(images):
            if missing:
                logger.warning(
                    "%s: %d of the first %d images do not exist, e.g. %s %d: %s.",
                    *(columns.path, len(missing), len(images), table.unit, missing[0][0]),
                    display_name(str(root / missing[0][1])),
                )
            return None
        first = first or missing
    columns.use_image(candidates[0])
    return _missing_images(table, columns, root, candidates, first) if first else None


def _image_names(table: Table) -> list[str]:
    """Return the columns of which all values in the first rows are names of image files."""
    rows = [row for _, row in islice(table.rows(table.columns), SAMPLED_ROWS) if not isinstance(row, str)]
    values = {name: [value for row in rows if (value := row.get(name)) not in (None, "")] for name in table.columns}
    return [
        name
        for name, found in values.items()
        if found and all(isinstance(value, str) and value.strip().lower().endswith(SUFFIXES) for value in found)
    ]


def image_exists(root: Path, image: str) -> bool:
    """Return whether there is a file, or a link, at an image path of a table."""
    try:
        return os.path.lexists(resolve_image(root, image))
    except ValueError:  # a zero byte
        return False


def _missing_images(
    table: Table, columns: Columns, root: Path, candidates: Sequence[str], missing: list[tuple[int, str]]
) -> UserError:
    number, image = missing[0]
    start = f"{columns.path}: column {candidates[0]}: "
    if is_remote(image):
        return UserError(
            f"{start}{table.unit} {number} has the address {display_name(image)[:MAX_SHOWN]}, not the path of an "
            "image. Download the images with img2dataset, and set data_dir to its output."
        )
    if os.path.isabs(image) or image[1:3] == ":\\":
        remedy = "Its absolute path is of another machine: write paths relative to image_dir"
    else:
        found = _find_root(root, [image.replace("\\", "/") for _, image in missing[:SEARCHED]])
        remedy = f"Write image_dir: {found or 'FOLDER, the folder to which the paths are relative'}"
    others = f", or another column, e.g. columns: {{image: {candidates[1]}}}" if len(candidates) > 1 else ""
    return UserError(
        f"{start}none of the first images ({len(missing):,}) exists, e.g. {table.unit} {number}: "
        f"{display_name(str(root / image))[:MAX_SHOWN]}. {remedy}{others}."
    )


def _find_root(root: Path, images: Sequence[str]) -> Path | None:
    """Return the folder to which paths are relative: below ``root``, the working directory, or beside ``root``."""
    below = chain((Path(folder) for folder, _, _ in os.walk(root)), [Path.cwd()])
    several = len({*images}) > 1  # one file name may be that of another image
    beside = (folder for folder in sorted(root.parent.iterdir()) if several and folder.is_dir())
    for folder in islice(chain(below, beside), MAX_FOLDERS):
        if all((folder / image).is_file() for image in images):
            return folder
    return None
