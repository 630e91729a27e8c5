"""Validation of configs: unknown keys, wrong types and invalid values raise an error with a one-line message."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mmf_flava.config.close_matches import close_matches
from mmf_flava.errors import UserError

T = TypeVar("T")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the hint `` Did you mean 'x'?`` with the closest known word, or `` Known names: ...`` if none is close."""
    known = sorted(known)
    if close := close_matches(word, known):
        return f" Did you mean '{close[0]}'?"
    return f" Known names: {', '.join(known)}." if known else ""


def parse_section(schema: type[T], section: Any, where: str) -> T:
    """Convert a section of the config to the dataclass ``schema``.

    Args:
        section: mapping (dict or OmegaConf) with any subset of the schema's keys.
        where: the section's full name for messages, e.g. ``model_config.flava``.

    Raises:
        UserError: an unknown key (with a suggestion), a wrong type or a missing mandatory value.
    """
    values = to_dict(section)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values)))  # type: ignore[return-value]
    except ConfigKeyError as error:
        parent, _, key = f"{where}.{_add_list_name(values, str(error.full_key))}".rpartition(".")
        known = [f.name for f in fields(error.object_type or schema)]  # type: ignore[arg-type]
        raise UserError(f"'{key}' is not a key of {parent}.{suggestion(key, known)}") from None
    except MissingMandatoryValue as error:
        raise UserError(f"{where}.{error.full_key} must be given.") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {str(error).splitlines()[0]}.") from None


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
