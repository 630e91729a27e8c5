"""Folders of prepared data that are built as a whole, from installed packages or a download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

MANIFEST = "manifest.json"


def build_folder(
    out: Path, kind: str, options: dict[str, Any], write: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Build data in the folder ``out``, unless it has data of the same kind and options.

    Data are written to a hidden folder next to ``out`` and renamed at the end. A killed process leaves ``out``
    unchanged, and the next call deletes the hidden folder. A concurrent call in another process waits for the first.

    Args:
        write: writes the data to a folder and returns further entries of the manifest, which is written last.

    Returns:
        The manifest; ``"created"`` is False if the data existed already.

    Raises:
        UserError: ``out`` contains something other than data of this kind.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(out.parent):
        manifest = read_manifest(out, kind)
        if manifest is not None and manifest["options"] == options:
            return {**manifest, "created": False}
        if manifest is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is not empty and has no {kind} data (no {MANIFEST}). Choose another folder.")
        with atomic.replace_folder(out) as temporary:
            manifest = {"kind": kind, "options": options, **write(temporary)}
            atomic.write_json(temporary / MANIFEST, manifest)
    return {**manifest, "created": True}


def read_manifest(out: str | Path, kind: str) -> dict[str, Any] | None:
    """Return the manifest of the data in ``out``, or None if there are no complete data of this kind."""
    try:
        manifest = read_object(Path(out) / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return manifest if manifest.get("kind") == kind else None
