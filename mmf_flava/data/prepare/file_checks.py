"""Checks whether a file contains annotations of a part of PMD. They read the beginning of the file.

COCO's captions are at the end of its files, so that these are searched completely; this needs a second per GB.
"""

import re
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.source_files import open_bytes, open_parquet, read_arrow
from mmf_flava.data.prepare.web_parts import header_url, sbu_text_files
from mmf_flava.data.prepare.yfcc import COLUMNS, is_database
from mmf_flava.files.json_data import parse_json
from mmf_flava.files.text_file import MAX_LINE

HEAD = 1 << 16  # bytes
CHUNK = 1 << 22
FIRST_LINES = 32  # a bad line at the beginning does not decide
URL = re.compile(r"https?://\S+$", re.IGNORECASE)
KARPATHY_KEYS = ("images", "sentences", "filename", "cocoid")
COCO_KEYS = ("images", "annotations", "file_name", "image_id", "caption")
REDCAPS_KEYS = ("annotations", "image_id", "url", "caption")
TEXT_KEYS = ("texts", "text", "captions", "caption")
IMAGE_KEYS = ("image", "image_url")


def read_head(path: Path) -> bytes:
    """Return the first 64 KiB of a file, decompressed."""
    with open_bytes(path) as file:
        return file.read(HEAD)


def is_coco(path: Path) -> bool:
    """Return whether a file has COCO's captions, in its own format or in Karpathy's."""
    return _starts_with(path, "{") and (contains_keys(path, COCO_KEYS) or is_karpathy_coco(path))


def is_karpathy_coco(path: Path) -> bool:
    """Return whether a file is Karpathy's ``dataset_coco.json``."""
    return _has_keys(_head_text(path), KARPATHY_KEYS)


def is_sbu(path: Path) -> bool:
    """Return whether a file has SBU's captions: JSON, or URLs with captions in another file."""
    if path.name.endswith("urls.txt") and sbu_text_files(path)[1].is_file():
        return URL.match(_first_line(path)) is not None
    head = _head_text(path)
    return head.lstrip().startswith("{") and (
        '"image_urls"' in head or re.match(r'\s*{\s*"captions"\s*:\s*\[', head) is not None
    )


def is_localized_narratives(path: Path) -> bool:
    """Return whether a file has records of Localized Narratives."""
    row = _first_record(path)
    return {"image_id", "caption"} <= set(row) and not {"url", "image_url"} & set(row)


def is_cc3m(path: Path) -> bool:
    """Return whether the lines of a file have a caption and a URL."""
    return _has_url(path, 1)


def is_cc12m(path: Path) -> bool:
    """Return whether the lines of a file have a URL and a caption."""
    return _has_url(path, 0)


def is_visual_genome(path: Path) -> bool:
    """Return whether a file has region descriptions; region graphs have more keys."""
    head = _head_text(path)
    return head.lstrip().startswith("[") and _has_keys(head, ("regions", "phrase")) and '"relationships"' not in head


def is_wit(path: Path) -> bool:
    """Return whether a file has the columns of WIT."""
    return {"language", "image_url"} <= set(_first_line(path).split("\t"))


def is_redcaps(path: Path) -> bool:
    """Return whether a file has annotations of RedCaps."""
    head = _head_text(path)
    return head.lstrip().startswith("{") and _has_keys(head, REDCAPS_KEYS) and '"file_name"' not in head


def is_yfcc100m(path: Path) -> bool:
    """Return whether a file has the metadata of YFCC100M, as text or as an SQLite database."""
    return is_database(path) or any(len(row) in range(COLUMNS, COLUMNS + 3) for row in _first_rows(path))


def narratives_dataset(path: Path) -> str:
    """Return ``dataset_id`` of the first record of Localized Narratives; empty if there is none."""
    return str(_first_record(path).get("dataset_id", ""))


def is_pmd(path: Path) -> bool:
    """Return whether a file has records in the format of facebook/pmd."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with open_parquet(path) as file:
            row: dict[str, Any] = dict.fromkeys(file.schema_arrow.names)
    else:
        row = next(read_arrow(path), {}) if suffix == ".arrow" else _first_record(path)
    return any(key in row for key in TEXT_KEYS) and any(key in row for key in IMAGE_KEYS)


def contains_keys(path: Path, keys: tuple[str, ...]) -> bool:
    """Return whether a JSON file contains all of some keys, in any object."""
    missing, rest = {f'"{key}"'.encode() for key in keys}, b""
    with open_bytes(path) as file:
        while missing and (chunk := file.read(CHUNK)):
            window = rest + chunk
            missing = {key for key in missing if key not in window}
            rest = window[-64:]
    return not missing


def _starts_with(path: Path, text: str) -> bool:
    return _head_text(path).lstrip().startswith(text)


def _has_keys(head: str, keys: tuple[str, ...]) -> bool:
    return all(f'"{key}"' in head for key in keys)


def _head_text(path: Path) -> str:
    return read_head(path).decode("utf-8-sig", "replace")


def _first_line(path: Path) -> str:
    return _head_text(path).partition("\n")[0].rstrip("\r")


def _first_record(path: Path) -> dict[str, Any]:
    """Return the first object of a JSONL file; empty if there is none among the first lines."""
    with open_bytes(path) as file:
        for _ in range(FIRST_LINES):
            try:
                row = parse_json(file.readline(MAX_LINE))
            except ValueError:
                continue
            if isinstance(row, dict):
                return row
    return {}


def _first_rows(path: Path) -> list[list[str]]:
    """Return the fields of the first lines of a TSV file."""
    return [line.split("\t") for line in _head_text(path).splitlines()[:FIRST_LINES]]


def _has_url(path: Path, column: int) -> bool:
    rows = _first_rows(path)
    named = header_url(rows[0]) if rows else None
    column = column if named is None else named
    return any(len(row) == 2 and URL.match(row[column].strip()) for row in rows)
