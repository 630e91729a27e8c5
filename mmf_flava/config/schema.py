"""The strict check of a recipe: every key is known and has its type, or one sentence says which is not."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mmf_flava.config.nearness import near
from mmf_flava.errors import UserError

T = TypeVar("T")


def near_miss(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known word, or the list of what is known where none is close."""
    known = sorted(known)
    if close := near(word, known):
        return f" Did you mean '{close[0]}'?"
    return f" Known here: {', '.join(known)}." if known else ""


def parse(schema: type[T], section: Any, where: str) -> T:
    """An instance of the dataclass ``schema`` from a section of the recipe.

    Args:
        section: mapping (plain or OmegaConf) with any subset of the schema's keys.
        where: the section's full name, used in messages, e.g. ``model_config.flava``.

    Raises:
        UserError: an unknown key (with its near miss), a wrong type, or a mandatory value that is missing.
    """
    values = plain(section)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values)))  # type: ignore[return-value]
    except ConfigKeyError as error:
        place, _, key = f"{where}.{_place(values, str(error.full_key))}".rpartition(".")
        known = [f.name for f in fields(error.object_type or schema)]  # type: ignore[arg-type]
        raise UserError(f"'{key}' is not a key of {place}.{near_miss(key, known)}") from None
    except MissingMandatoryValue as error:
        raise UserError(f"{where}.{error.full_key} must be given.") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {str(error).splitlines()[0]}.") from None


def _place(values: dict[str, Any], full_key: str) -> str:
    """``full_key`` with the list that OmegaConf leaves out where the key stands inside a list's element."""
    for name, value in values.items():
        if isinstance(value, list) and any(isinstance(item, dict) and full_key in item for item in value):
            return f"{name}.{full_key}"
    return full_key


def check_keys(section: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuses keys of a section that neither MMF's defaults nor our schema know."""
    known = set(known)
    for key in section:
        if key not in known:
            raise UserError(f"'{key}' is not a key of {where}.{near_miss(str(key), known)}")


def plain(section: Any) -> dict[str, Any]:
    """A section as a plain dictionary, interpolations resolved while the recipe around it is still known."""
    return OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else dict(section)  # type: ignore[return-value]


def one_of(value: str, allowed: Iterable[str], where: str) -> str:
    """``value`` if it is allowed.

    Raises:
        UserError: it is not; the message names what is.
    """
    if value not in allowed:
        raise UserError(f"{where}: {value!r} is not one of {', '.join(allowed)}.")
    return value


def positive(value: Any, where: str) -> int:
    """``value`` if it is an integer above 0.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} is {value!r}; it must be a whole number of at least 1.")
    return value
