"""Parsing of YAML files and of the values of command-line options, with one-line errors."""

import contextlib
import re
from ast import literal_eval
from collections.abc import Iterator
from copy import deepcopy
from functools import cache, lru_cache
from typing import Any

import yaml

from mmf_flava.errors import UserError

MAX_BYTES = 2**22  # of a file; 4 MB take seconds to parse, and MMF's largest file has a few kilobytes
MAX_NODES = 1_000_000  # limit after aliases are expanded; MMF's largest file has a few thousand
EXAMPLE = "as in `model: flava`"


def read_yaml(path: str) -> dict[Any, Any]:
    """Return the content of a YAML file, whose root is a mapping.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: the file cannot be read, is not UTF-8, not valid YAML, or its root is not a mapping; or a key occurs
            twice in a section.
    """
    text = _read_text(path)
    try:
        # the check before torch is imported and MMF read the same files
        content = deepcopy(_parse_file(text, path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_explain(error, text)}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply. Remove levels of brackets or indentation.") from None
    except UserError:
        raise
    except Exception as error:  # PyYAML's constructors raise errors of any type, e.g. for `!!bool maybe`
        raise UserError(f"{path} is not valid YAML ({error}). Correct the value, or write it in quotes.") from None
    if content is None:
        raise UserError(f"{path} is empty. Write keys and values, {EXAMPLE}.")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"the value {_shorten(repr(content))}"
        raise UserError(f"{path} must be a mapping of keys to values, {EXAMPLE}, but is {kind}.")
    return content


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. Set the path of a YAML file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({(error.strerror or '').lower()}). Use a readable file.") from None
    except ValueError as error:  # a zero byte in the path
        raise UserError(f"{path!r} is not a path ({error}). Correct the path.") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes. Use a YAML file with settings only.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: the text is not UTF-8. Save the YAML file as UTF-8.") from None


@lru_cache(maxsize=256)
def _parse_file(text: str, path: str) -> Any:
    return _parse(text, path)


def _parse(text: str, path: str, complete: bool = False) -> Any:
    """Return the content of a YAML text.

    Args:
        path: file or option, for messages.
        complete: True for the value of an option: a key without a value is an error, and None is read as null.
    """
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, path)
        for scalar in _scalars(node, set()):
            if not _is_decimal(scalar):
                raise UserError(
                    f"{path}: YAML does not read {scalar.value} as a decimal number. Write it in quotes if it is a "
                    "string, or as a decimal number without leading zeros."
                )
            if complete and scalar.style is None and scalar.value == "None":  # a Python literal
                scalar.tag = "tag:yaml.org,2002:null"
        if complete:
            _check_complete(node, path)
        return loader.construct_document(node)
    finally:
        loader.dispose()


@cache
def _loader() -> Any:
    """Return OmegaConf's YAML loader: dates are strings, 1e-4 is a float, and a duplicate key is an error."""
    from omegaconf._utils import get_yaml_loader

    return get_yaml_loader()


def _check_size(root: yaml.Node, path: str) -> None:
    """Raise UserError if aliases expand to more than ``MAX_NODES`` values, or if an alias contains itself."""
    sizes: dict[int, int] = {}  # 0: not finished

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if sizes[id(node)] == 0:
                line = node.start_mark.line + 1
                raise UserError(f"{path}, line {line}: an anchor contains an alias of itself. Remove the alias.")
            return sizes[id(node)]
        sizes[id(node)] = 0
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = isinstance(node, yaml.MappingNode)
        total = 1 + sum(size(part) for child in children for part in (child if pairs else (child,)))
        if total > MAX_NODES:
            line = node.start_mark.line + 1
            raise UserError(
                f"{path}, line {line}: the aliases expand to more than {MAX_NODES:,} values. Write the values instead."
            )
        sizes[id(node)] = total
        return total

    size(root)


def _scalars(node: yaml.Node, visited: set[int]) -> Iterator[yaml.ScalarNode]:
    """Yield the scalars of a YAML document, each once."""
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            yield from _scalars(part, visited)


def _is_decimal(node: yaml.ScalarNode) -> bool:
    """Return False for a number such as 010 or 1:30, which YAML 1.1 reads as 8 (octal) and 90 (base 60)."""
    number = node.value.replace("_", "").lstrip("+-")
    is_number = node.style is None and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    return not (is_number and (":" in number or (number[:1] == "0" and number[1:].isdigit())))


def _check_complete(node: yaml.Node, option: str) -> None:
    """Raise UserError for a key without a value, such as 'a:1' in {a:1}, or a and b in {a, b}."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_complete(child, option)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None:
                raise UserError(
                    f"{option}: {key.value!r} has no value. YAML requires a space after each colon, as in {{a: 1}}. A "
                    "list is written as [a, b]."
                )
            _check_complete(value, option)


def _explain(error: yaml.YAMLError, text: str) -> str:
    """Describe an error of PyYAML and its fix, as text to append to the name of the file: ``, line 3: ...``."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return f", line {line}: the character {chr(error.character)!r} is not allowed in YAML. Remove it."  # type: ignore[arg-type]
    problem, mark = str(getattr(error, "problem", error)), getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}" if mark is not None else ""
    if duplicate := re.fullmatch(r"found duplicate key (.*)", problem):
        return f"{place}: the key {duplicate[1]!r} occurs twice in its section. Remove one of them."
    if "determine a constructor" in problem:
        return f"{place}: the text is not valid YAML ({' '.join(problem.split())}). Write the value in quotes."
    if "'\\t'" in problem:
        return f"{place}: a tab is used as indentation. Use spaces."
    return f"{place}: the text is not valid YAML ({' '.join(problem.split())}). Correct this line or the one before."


def parse_value(text: str, option: str) -> Any:
    """Return the value of a command-line option: a Python literal, a list or section in YAML's flow style, or a scalar.

    A scalar such as ``1e-4``, ``true``, ``null`` or ``~`` is converted as in YAML. Any other scalar is a string, which
    may contain spaces, colons, commas and '#'.

    Args:
        option: the option ``key=value``, for messages.

    Raises:
        UserError: the value is empty, or its brackets or quotes are not closed.
    """
    if not text.strip():
        raise UserError(f"{option} has no value. Write null for no value, or '\"\"' for an empty string.")
    if text.lstrip()[0] not in "[{\"'":
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = literal_eval(text.strip())
            if isinstance(value, str | int | float | bool | list | dict | tuple | None):
                return list(value) if isinstance(value, tuple) else value
        return parse_scalar(text)
    forms = "Write a list as [a, b], a section as {a: 1}, and quote other values that begin with a bracket or quote."
    try:
        return _parse(text, option, complete=True)
    except yaml.YAMLError as error:
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise UserError(f"{option}: the value is not valid YAML ({problem}). {forms}") from None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_shorten(option)}: the value is not valid YAML ({error}). {forms}") from None


def parse_scalar(text: str) -> Any:
    """Return a text as the value that YAML reads without quotes; the text itself if YAML cannot read it."""
    loader = _loader()("")
    try:
        node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
        return loader.construct_object(node) if _is_decimal(node) else text
    except (yaml.YAMLError, ValueError):  # such as '=' and '<<', which are tags without a constructor
        return text
    finally:
        loader.dispose()


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
