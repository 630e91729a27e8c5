"""The image paths in a table: which column has them, and whether the images of the first rows exist."""

import logging
import os
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from mmf_flava.data.formats.columns import Columns
from mmf_flava.data.formats.tables import Table
from mmf_flava.data.names import display_name
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote

logger = logging.getLogger(__name__)

SAMPLED_ROWS = 100  # rows whose images must not all be missing
SEARCHED = 5  # missing images that are searched
MAX_FOLDERS = 1000  # folders that are searched for a missing image


def resolve_image(root: Path, name: str) -> Path:
    """Return the path of an image. Backslashes, as Windows writes them, separate folders if there is no such file."""
    path = root / name
    return root / name.replace("\\", "/") if "\\" in name and not os.path.lexists(path) else path


def check_image_paths(table: Table, columns: Columns, root: Path) -> UserError | None:
    """Choose the column whose images exist, if several columns may have the image paths.

    Returns:
        The error with the line to write if all images of the first rows are missing.

    Raises:
        UserError: there is no such column.
    """
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
        missing = [(number, image) for number, image in images if not _exists(root, image)]
        if len(missing) < len(images):
            if missing:
                logger.warning(
                    "%s: %d of the first %d images do not exist, e.g. %s %d: %s.",
                    *(columns.path, len(missing), len(images), table.unit, missing[0][0], root / missing[0][1]),
                )
            return None
        first = first or missing
    columns.use_image(candidates[0])
    return _missing_images(table, columns, root, candidates, first) if first else None


def _exists(root: Path, image: str) -> bool:
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
            f"{start}{table.unit} {number} has the address {image}, not the path of an image. Download the images with "
            "img2dataset, and set data_dir to its output."
        )
    if os.path.isabs(image):
        remedy = "Its absolute path is of another machine: write paths relative to image_dir"
    else:
        found = _find_root(root, [image.replace("\\", "/") for _, image in missing[:SEARCHED]])
        remedy = f"Write image_dir: {found or 'FOLDER, the folder to which the paths are relative'}"
    others = f", or another column, e.g. columns: {{image: {candidates[1]}}}" if len(candidates) > 1 else ""
    return UserError(
        f"{start}none of the first images ({len(missing):,}) exists, e.g. {table.unit} {number}: "
        f"{display_name(str(root / image))}. {remedy}{others}."
    )


def _find_root(root: Path, images: Sequence[str]) -> Path | None:
    """Return the folder below ``root``, or beside it, to which these image paths are relative."""
    below = (Path(folder) for folder, _, _ in os.walk(root))
    several = len({*images}) > 1  # one file name may be that of another image
    beside = (folder for folder in sorted(root.parent.iterdir()) if several and folder.is_dir())
    for folder in islice(chain(below, beside), MAX_FOLDERS):
        if all((folder / image).is_file() for image in images):
            return folder
    return None
