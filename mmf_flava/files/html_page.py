"""Writing of HTML pages, such as reports, to the path that a command line names."""

from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.files import atomic


def write_page(path: Path, page: str) -> None:
    """Write a page atomically, and create its folder.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, page)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}). Choose another path with --out FILE.html."
        ) from error
