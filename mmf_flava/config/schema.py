"""Validation of configs: unknown keys, wrong types and invalid values raise an error with a one-line message."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.ranges import check_ranges
from mmf_flava.config.yaml_reader import parse_scalar
from mmf_flava.errors import UserError

T = TypeVar("T")
MAX_PARSED = 1000  # sections
_parsed: dict[tuple[type, str, str], Any] = {}  # valid sections by class, name and values


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the hint `` Did you mean 'x'?`` with the closest known word, or `` Known names: ...`` if none is close."""
    known = sorted(known)
    if close := close_matches(word, known):
        return f" Did you mean '{close[0]}'?"
    return f" Known names: {', '.join(known)}." if known else ""


def parse_section(schema: type[T], section: Any, where: str) -> T:
    """Convert a section of the config to the dataclass ``schema``, and check types, ranges and combinations of keys.

    Args:
        section: mapping (dict or OmegaConf) with any subset of the schema's keys.
        where: the section's full name for messages, e.g. ``model_config.flava``.

    Raises:
        UserError: a key is unknown, a value has the wrong type or is out of range, or a mandatory value is missing.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where}: must be a section (a mapping of keys to values), got {section!r}.")
    try:
        values = to_dict(section)
        # MMF builds a dataset's config several times, and each conversion takes 10 ms
        key = schema, where, repr(values)
        if key in _parsed:
            return deepcopy(_parsed[key])
        check_type(schema, values, where)
        config: T = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values)))  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise UserError(f"{where}.{error.full_key} must be given.") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {str(error).splitlines()[0]}.") from None
    check_ranges(config, where)
    if len(_parsed) < MAX_PARSED:
        _parsed[key] = deepcopy(config)
    return config


class WrongType(UserError):
    """A value has the wrong type. ``key`` is its full name."""

    key = ""


TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
MAX_INTEGER = 2**63 - 1


def check_type(hint: Any, value: Any, where: str) -> None:
    """Raise UserError if a value does not have the type ``hint``, a type annotation of a config class.

    An integer is a valid float; other types are not converted. If ``hint`` is a dataclass, the value must be a section
    whose keys are fields of the dataclass.

    Args:
        where: the full name of the value, for messages.
    """
    if isinstance(value, str) and value == MISSING:
        raise UserError(f"{where} must be given.")
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if any(kind is Any or _has_type(kind, value) for kind in kinds):
        kind = next((kind for kind in kinds if _has_type(kind, value)), Any)
        _check_elements(kind, value, where)
        return
    names = [_type_name(kind) for kind in kinds if kind is not NoneType]
    error = WrongType(f"{where}: must be {' or '.join(names)}, got {value!r}.{_conversion(kinds, value, where)}")
    error.key = where
    raise error


def _conversion(kinds: tuple[Any, ...], value: Any, where: str) -> str:
    """Return a hint to write a value with or without quotes, or 1e3 as an integer; empty if no hint applies."""
    if str in kinds and isinstance(value, bool | int | float):
        return f" Write it in quotes; on the command line as '{where}=\"{value}\"'."
    if int in kinds and isinstance(value, float) and value.is_integer():
        return f" Write {int(value)}."
    if isinstance(value, str) and any(_has_type(kind, parse_scalar(value)) for kind in kinds):
        return " Write it without quotes."
    return ""


def _has_type(kind: Any, value: Any) -> bool:
    if kind is NoneType:
        return value is None
    if is_dataclass(kind) or get_origin(kind) is dict:
        return isinstance(value, Mapping)
    if get_origin(kind) is list:
        return isinstance(value, list)
    if kind in (int, float):
        is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
        return is_number or (kind is float and isinstance(value, float))
    return kind is not Any and isinstance(value, kind)


def _check_elements(kind: Any, value: Any, where: str) -> None:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        check_keys(value, hints, where, getattr(kind, "REPLACED", None))
        for name, item in value.items():
            check_type(hints[name], item, f"{where}.{name}")
            if item == "" and hints[name] != Any:
                raise UserError(
                    f"{where}.{name}: must not be empty. Set a value; for the default, set null or remove the key."
                )
    elif get_origin(kind) is list:
        for number, item in enumerate(value):
            check_type(get_args(kind)[0], item, f"{where}[{number}]")
    elif get_origin(kind) is dict:
        for name, item in value.items():
            check_type(get_args(kind)[1], item, f"{where}.{name}")


def _type_name(kind: Any) -> str:
    if is_dataclass(kind) or get_origin(kind) is dict:
        return "a section (a mapping of keys to values)"
    return "a list" if get_origin(kind) is list else TYPES[kind]


def check_keys(
    section: Mapping[str, Any], known: Iterable[str], where: str, replaced: Mapping[str, str] | None = None
) -> None:
    """Raise UserError if the section has a key that is not in ``known``.

    Args:
        where: the section's full name.
        replaced: removed key -> what to use instead.
    """
    known = set(known)
    for key in section:
        if key in (replaced or {}):
            raise UserError(f"{where}.{key} was removed. Use {(replaced or {})[key]}.")
        if key not in known:
            raise UserError(f"'{key}' is not a key of {where}.{suggestion(str(key), known)}")


def to_dict(section: Any) -> dict[str, Any]:
    """Convert a section to a dict with its interpolations resolved."""
    if OmegaConf.is_config(section):
        return OmegaConf.to_container(section, resolve=True)  # type: ignore[return-value]
    return {key: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for key, v in section.items()}


def check_choice(value: str, allowed: Iterable[str], where: str) -> str:
    """Return ``value`` if it is in ``allowed``; ``where`` is the key's full name.

    Raises:
        UserError: the value is not allowed; the message lists the allowed values.
    """
    if value not in allowed:
        raise UserError(f"{where}: {value!r} is not one of {', '.join(allowed)}.")
    return value


def check_positive(value: Any, where: str) -> int:
    """Return ``value`` if it is a positive integer; ``where`` is the key's full name.

    Raises:
        UserError: the value is not a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} is {value!r}, expected an integer of at least 1.")
    return value
