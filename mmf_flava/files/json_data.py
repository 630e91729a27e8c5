"""Parser of JSON from foreign files: every invalid input raises a ValueError with a short reason.

Differences from ``json.loads``, which raises RecursionError for nested data and keeps the whole text in its errors:
    - Nesting is limited by Python's recursion limit, integers by its limit of 4,300 digits.
    - A byte order mark is skipped. Bytes must be valid UTF-8, UTF-16 or UTF-32.
As with ``json.loads``, NaN and Infinity are accepted, 1e999 is infinity, and strings may contain NUL and lone
surrogates (Python writes file names that are not UTF-8 with them). The code that uses a value checks it.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import IO, Any

from mmf_flava.files.regular_file import open_regular_file

TOO_DEEP = "the JSON data are nested too deeply"


def parse_json(data: bytes | str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: the text is not valid JSON.
    """
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        return json.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        reason = TOO_DEEP
    except UnicodeDecodeError as error:
        reason = f"not valid {error.encoding.upper()}: {error.reason} at byte {error.start}"
    except json.JSONDecodeError as error:
        reason = str(error)
    except ValueError as error:  # an integer with too many digits
        reason = str(error).partition(":")[0]
    raise ValueError(reason)  # outside the handlers, because json's errors keep the whole text


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: the text is not valid JSON, or not an object.
    """
    content = parse_json(data)
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {type(content).__name__}")
    return content


def read_object(path: str | os.PathLike[str], max_bytes: int | None = None) -> dict[str, Any]:
    """Read a file that contains a JSON object.

    Args:
        max_bytes: maximum size of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, not valid JSON, or not an object.
    """
    with open_regular_file(path) as file:
        data = file.read(-1 if max_bytes is None else max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise ValueError(f"the file has more than {max_bytes:,} bytes")
    return parse_object(data)


def iterate_array(file: IO[str]) -> Iterator[Any]:
    """Yield the elements of a JSON array, one at a time. The file may be larger than memory.

    Raises:
        ValueError: the file is not a JSON array, is truncated or is nested too deeply.
    """
    decoder, separators, opened = json.JSONDecoder(), re.compile(r"[\s,]*"), False
    buffer, position = "", 0
    # As much is read as is left, so that an element of any size is parsed in linear time.
    while chunk := file.read(max(1 << 20, len(buffer) - position)):
        buffer, position = buffer[position:] + chunk, 0
        if not opened and (bracket := buffer.find("[")) >= 0:
            position, opened = bracket + 1, True
        while opened:
            position = separators.match(buffer, position).end()  # type: ignore[union-attr]
            try:
                item, position = decoder.raw_decode(buffer, position)
            except ValueError:
                break  # the element continues in the next chunk
            except RecursionError:
                raise ValueError(TOO_DEEP) from None
            yield item
    if buffer[position:].strip() != "]":
        raise ValueError("the JSON array is truncated")
