"""Validation of configs: unknown keys, wrong types and invalid values raise an error with a one-line message."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.ranges import check_ranges
from mmf_flava.errors import UserError

T = TypeVar("T")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the hint `` Did you mean 'x'?`` with the closest known word, or `` Known names: ...`` if none is close."""
    known = sorted(known)
    if close := close_matches(word, known):
        return f" Did you mean '{close[0]}'?"
    return f" Known names: {', '.join(known)}." if known else ""


def parse_section(schema: type[T], section: Any, where: str) -> T:
    """Convert a section of the config to the dataclass ``schema``, and check its ranges.

    Args:
        section: mapping (dict or OmegaConf) with any subset of the schema's keys.
        where: the section's full name for messages, e.g. ``model_config.flava``.

    Raises:
        UserError: an unknown key (with a suggestion), a wrong type, a value out of range or a missing mandatory value.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where}: must be a section (a mapping of keys to values), got {section!r}.")
    try:
        values = to_dict(section)
        _check_types(schema, values, where)
        config: T = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values)))  # type: ignore[assignment]
    except ConfigKeyError as error:
        parent, _, key = f"{where}.{_add_list_name(values, str(error.full_key))}".rpartition(".")
        known = [f.name for f in fields(error.object_type or schema)]  # type: ignore[arg-type]
        raise UserError(f"'{key}' is not a key of {parent}.{suggestion(key, known)}") from None
    except MissingMandatoryValue as error:
        raise UserError(f"{where}.{error.full_key} must be given.") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {str(error).splitlines()[0]}.") from None
    check_ranges(config, where)
    return config


def _check_types(schema: type, values: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a string or bool of another type, which OmegaConf would convert: 2 to True, 5 to '5'."""
    for name, hint in get_type_hints(schema).items():
        if name not in values:
            continue
        value, kinds = values[name], get_args(hint) or (hint,)
        for kind in kinds:
            if is_dataclass(kind) and isinstance(value, Mapping):
                _check_types(kind, value, f"{where}.{name}")  # type: ignore[arg-type]
        wrong = (bool in kinds and isinstance(value, int | str) and not isinstance(value, bool)) or (
            str in kinds and hint in (str, str | None) and isinstance(value, bool | int | float)
        )
        if wrong:
            remedy = "true or false" if bool in kinds else "a string; write it in quotes"
            raise UserError(f"{where}.{name}: must be {remedy}, got {value!r}.")


def _add_list_name(values: dict[str, Any], full_key: str) -> str:
    """Prepend the name of the list that contains ``full_key``, which OmegaConf omits for keys of list elements."""
    for name, value in values.items():
        if isinstance(value, list) and any(isinstance(item, dict) and full_key in item for item in value):
            return f"{name}.{full_key}"
    return full_key


def check_keys(section: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UserError if the section has a key that is not in ``known``; ``where`` is the section's full name."""
    known = set(known)
    for key in section:
        if key not in known:
            raise UserError(f"'{key}' is not a key of {where}.{suggestion(str(key), known)}")


def to_dict(section: Any) -> dict[str, Any]:
    """Convert a section to a dict with its interpolations resolved."""
    return OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else dict(section)  # type: ignore[return-value]


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
