"""Records of JSON files: JSON Lines, an array, or one object. The content decides: ``.json`` names all three."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.source_files import open_text, read_json_lines
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import iterate_array, parse_json
from mmf_flava.files.text_file import MAX_LINE

MAX_OBJECT = 1 << 28  # characters of a file that is one object


def json_form(path: Path) -> str:
    """Return ``lines``, ``array`` or ``object``. A damaged first line of JSON Lines may look like an object.

    Raises:
        UserError: a line is too large.
    """
    with open_text(path) as file:
        first = file.readline(MAX_LINE)
        while first and not first.strip():
            first = file.readline(MAX_LINE)
        second = next((line for line in file if line.strip()), "") if _is_object(first) else ""
    start = first.lstrip("\ufeff \t")
    if start.startswith("["):
        return "array"
    return "lines" if second or not start.startswith("{") else "object"


def read_json_records(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the records of a JSON file. For a record that is not JSON, yield the ValueError.

    A file with one object is one record. If the object has none of ``columns``, but a list of objects, such as
    {"data": [...]}, these are the records. {"text": {"0": ..., "1": ...}}, as pandas writes it, has a record per text.

    Raises:
        UserError: a line, or a file with one object, is too large.
    """
    form = json_form(path)
    if form == "array":
        yield from _read_array(path)
    elif form == "lines":
        yield from read_json_lines(path)
    else:
        yield from _read_object(path, columns)


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _read_array(path: Path) -> Iterator[Any]:
    with open_text(path) as file:
        try:
            yield from iterate_array(file)
        except ValueError as error:
            yield error


def _read_object(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with open_text(path) as file:
        text = file.read(MAX_OBJECT + 1)
    if len(text) > MAX_OBJECT:
        raise UserError(
            f"{path}: the file is one JSON object of more than {MAX_OBJECT:,} characters. Write JSON Lines."
        )
    try:
        content = parse_json(text)
    except ValueError:
        yield from read_json_lines(path)  # the first line is damaged
        return
    present = next((column for column in columns if column in content), None)
    lists = [value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if present is None and len(lists) == 1:
        yield from lists[0]
    elif present is not None and isinstance(content[present], dict):
        yield from ({present: text} for text in content[present].values())
    else:
        yield content
