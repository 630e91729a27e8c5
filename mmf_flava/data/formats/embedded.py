"""Formats that contain the images, as tar shards: parquet, Arrow files of `datasets`, and archives.

They are written once, into a folder in the cache whose name depends on the path, on the sizes and modification times of
the files, and on the columns. See ``shard_preparation`` for interrupted and concurrent runs.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.data.formats.archive import Archive, is_archive
from mmf_flava.data.formats.arrow_files import find_arrow_files
from mmf_flava.data.formats.embedded_images import EmbeddedImages
from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.data.prepare.output_folder import WORK
from mmf_flava.data.prepare.shard_preparation import ShardPreparation, State, describe_dropped
from mmf_flava.data.record import Records
from mmf_flava.errors import NOT_WRITABLE, UserError, is_full_disk
from mmf_flava.files import atomic
from mmf_flava.files.download import default_cache_dir
from mmf_flava.files.json_data import read_object

logger = logging.getLogger(__name__)

VERSION = 1  # of the shards in the cache
SHARD = 1000  # rows per shard
FOLDER = "own_data"  # in the cache
MAX_NAME = 60  # characters of the source's name in the name of its folder
COPIES = {True: 2.5, False: 1.1}  # bytes in the cache per byte of an archive, which is unpacked first, or of a table

OpenRecords = Callable[..., Records]


def embedded_shards(
    path: Path,
    columns: Mapping[str, Any] | None = None,
    images: Path | None = None,
    images_required: bool = True,
    open_records: OpenRecords | None = None,
) -> list[Path]:
    """Return the tar shards of a format that contains the images. They are written at the first call.

    Args:
        path: a parquet or Arrow file, a folder of them, or an archive.
        columns: value of the config key ``columns``.
        images: folder of relative image paths in tables; None: the folder of each table.
        images_required: whether rows without an image are left out.
        open_records: opens the unpacked folder of an archive: (path, columns=..., images_required=...) -> records.

    Raises:
        UserError: the files are damaged, have no images, or cannot be written to the cache.
    """
    path, columns = Path(path), _plain(columns)
    archive = path.is_file() and is_archive(path)
    files = [path] if archive else [file for file, _ in find_arrow_files(path)]
    key = {
        "version": VERSION,
        "path": os.path.realpath(path),
        "files": _fingerprint(path, files),
        "columns": columns,
        "images": None if images is None else os.path.realpath(images),
        "images_required": images_required,
    }
    out = default_cache_dir() / FOLDER / _folder_name(path, key)
    try:
        manifest = _finished(out)
        if manifest is None:
            if archive:
                assert open_records is not None
                source: Any = Archive(path, partial(open_records, columns=columns, images_required=images_required))
            else:
                source = EmbeddedImages(path, columns, images, images_required)
            _check_space(path, out, COPIES[archive] * sum(file.stat().st_size for file in files))
            manifest = _prepare(source, key, out)
    except OSError as error:
        raise _write_error(path, out, error) from error
    log = logger.warning if manifest["dropped"] else logger.info
    log(
        "%s: %s%s. %s records were written as shards to %s. Left out: %s.",
        *(path, manifest["format"], manifest["columns"], f"{_count(manifest):,}", out, describe_dropped(manifest)),
    )
    return [out / shard["name"] for shard in manifest["shards"]]


def _prepare(source: Any, key: Mapping[str, Any], out: Path) -> dict[str, Any]:
    logger.info("%s: %s. Its records are written as shards to %s.", source.path, source.kind, out)

    def manifest(state: State) -> dict[str, Any]:
        columns = f", columns {source.chosen}" if source.chosen else ""
        return {"kind": "own data", "format": source.kind, "columns": columns, **state}

    preparation = ShardPreparation(
        source.path.name,
        key,
        source.results,
        manifest,
        count_names=("images",),
        shard=SHARD,
        rows=source.rows,
        text_files={"classes.txt": "".join(f"{name}\n" for name in source.classes)} if source.classes else {},
        source=str(source.path),
        remedy="Write the image's column as e.g. columns: {image: NAME}, or write the data again.",
    )
    with folder_lock(out):  # the processes of a run start at the same time, and an archive is unpacked once
        return preparation.run(out)


def _finished(out: Path) -> dict[str, Any] | None:
    """Return the manifest of finished shards. If a shard was deleted, delete the manifest and return None."""
    try:
        manifest = read_object(out / "manifest.json")
        if all((out / shard["name"]).is_file() for shard in manifest["shards"]):
            shutil.rmtree(out / WORK, ignore_errors=True)  # of a process that was killed after it wrote the manifest
            return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    (out / WORK).mkdir(parents=True, exist_ok=True)  # the other shards in the folder are those of this preparation
    atomic.remove(out / "manifest.json")
    return None


def _count(manifest: Mapping[str, Any]) -> int:
    return sum(shard["records"] for shard in manifest["shards"])


def _plain(columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the columns without classes of OmegaConf."""
    given = (columns or {}).items()
    return {str(role): name if name is None or isinstance(name, str) else list(name) for role, name in given}


def _fingerprint(path: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        name = os.path.relpath(file, path)
        digest.update(f"{name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _folder_name(path: Path, key: Mapping[str, Any]) -> str:
    name = "".join(character if character.isalnum() or character in "-_." else "_" for character in path.resolve().name)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return f"{name.lstrip('.')[:MAX_NAME]}-{digest}"


def _check_space(path: Path, out: Path, needed: float) -> None:
    """Raise UserError if the disk of the cache has less than ``needed`` bytes."""
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())  # by an interrupted run
    if free + written < needed:
        raise UserError(
            f"{path}: its images are written to {out}, which needs about {needed / 1e9:,.1f} GB, but {free / 1e9:,.1f} "
            "GB are free. Free space, or set the environment variable MMF_CACHE_DIR to a folder on another disk."
        )


def _write_error(path: Path, out: Path, error: OSError) -> Exception:
    if is_full_disk(error):
        problem = f"{path}: its images do not fit on the disk of {out}. Free space"
    elif error.errno in NOT_WRITABLE and str(error.filename).startswith(str(default_cache_dir())):
        problem = f"{path}: its images cannot be written to {out} ({error.strerror}). Correct the permissions"
    else:
        return error
    return UserError(f"{problem}, or set the environment variable MMF_CACHE_DIR to another folder.")
