"""The config key ``columns``: which columns of a table or a list have the images, captions, labels, ids and splits."""

from collections.abc import Mapping
from typing import Any

from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

ROLES = ("image", "caption", "label", "id", "split")
EXAMPLE = "columns: {image: filepath, caption: title}"


def check_columns(columns: Any, where: str) -> None:
    """Check a mapping from roles to the names of columns. Only the caption may have several columns.

    Raises:
        UserError: a key is not a role, or a value is not the name of a column. null means that there is no such column.
    """
    if columns is None:
        return
    if not isinstance(columns, Mapping):
        raise UserError(
            f"{where}: must be a mapping from roles to column names, got {columns!r}. Write e.g. {EXAMPLE}."
        )
    for role, name in columns.items():
        if role not in ROLES:
            raise UserError(f"'{role}' is not a key of {where}.{suggestion(str(role), ROLES)}")
        names = name if role == "caption" and isinstance(name, list | tuple) and name else [name]
        if name is not None and not all(isinstance(one, str) and one.strip() for one in names):
            raise UserError(f"{where}.{role}: must be the name of a column, got {name!r}. Write e.g. {EXAMPLE}.")
