"""MMF's older annotation files ``imdb_*.npy``: arrays of dictionaries, which numpy stores as a pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.errors import UserError
from mmf_flava.files.npy import read_npy
from mmf_flava.files.regular_file import open_regular_file


def read_imdb(path: Path) -> list[Any]:
    """Return the entries of an imdb file. Nothing in the file is executed.

    As in MMF, the first entry is a header if it has no ``image_id``.

    Raises:
        OSError: the file cannot be read.
        UserError: the file is damaged, or contains other objects than plain data and arrays.
    """
    remedy = "Copy or download the file again."
    try:
        with open_regular_file(path) as file:
            content = read_npy(file)
    except ValueError as error:
        raise UserError(f"{path} was not read, and nothing in it was executed: {error}. {remedy}") from None
    entries = content.get("data") if isinstance(content, dict) else content
    if isinstance(entries, np.ndarray) and entries.ndim == 1:
        entries = entries.tolist()
    if not isinstance(entries, list):
        raise UserError(f"{path} is not an array of dictionaries, as MMF's imdb files are. {remedy}")
    if entries and isinstance(entries[0], dict) and "image_id" not in entries[0]:
        entries = entries[1:]
    return entries


def to_json(value: Any) -> Any:
    """Return the JSON value of an array or of another object, for ``json.dumps``."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return {"type": type(value).__name__}  # neither a text nor a number; an error of this entry where it is used
