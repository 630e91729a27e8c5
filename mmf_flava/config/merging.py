"""Merging of configs in which one config replaces a section of another.

OmegaConf cannot merge a list with a section, and its error message does not contain the key. It merges the params of
two processors of different types.
"""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf, open_dict

from mmf_flava.config.processors import PROCESSORS
from mmf_flava.errors import UserError


def check_containers(base: Any, given: Any) -> None:
    """Raise UserError if ``given`` has a list where ``base`` has a section, or a section where ``base`` has a list.

    At the top level, a section must not be replaced by any other value except an interpolation.
    """
    base, given = map(_plain, (base, given))
    section = "a section (a mapping of keys to values)"
    for key, value, is_list in _replaced(base, given):
        raise UserError(f"{'.'.join(map(str, key))}: must be {section if is_list else 'a list'}, got {value!r}.")
    for key, value in (given or {}).items():
        is_interpolation = isinstance(value, str) and "${" in value
        if isinstance(base.get(key), dict) and not isinstance(value, dict) and not is_interpolation:
            raise UserError(f"{key}: must be {section}, got {value!r}.")


def clear_replaced(base: Any, given: Any) -> None:
    """In ``base``, set to null each list that ``given`` replaces by a section, and each section replaced by a list.

    If ``given`` replaces the type of a processor by a type of mmf_flava, the params of the old type are removed.
    ``base`` is changed in place. Merging both configs then gives the value in ``given``.
    """
    plain = _plain(base), _plain(given)
    for key, _, _ in list(_replaced(*plain)):
        node = base
        for name in key[:-1]:
            node = node[name]
        node[key[-1]] = None
    for key, entry in _processors(plain[0]):
        kind = dict(_processors(plain[1])).get(key, {}).get("type")
        if isinstance(kind, str) and kind in PROCESSORS and kind != entry.get("type", kind) and "params" in entry:
            dataset, name = key
            with open_dict(base):
                base.dataset_config[dataset].processors[name].pop("params")


def _processors(config: Any) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield the (dataset, name) and the section of each processor of a config."""
    sections = config.get("dataset_config") if isinstance(config, dict) else None
    for dataset, section in sections.items() if isinstance(sections, dict) else ():
        processors = section.get("processors") if isinstance(section, dict) else None
        for name, entry in processors.items() if isinstance(processors, dict) else ():
            if isinstance(entry, dict):
                yield (dataset, name), entry


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else None


def _replaced(base: Any, given: Any) -> Iterator[tuple[tuple[Any, ...], Any, bool]]:
    """Compare two configs, and find the keys with a list in one of them and a section in the other.

    Yields:
        The key, the value in ``given``, and whether this value is a list.
    """
    if isinstance(base, dict) and isinstance(given, dict):
        for name in base.keys() & given.keys():
            if {type(base[name]), type(given[name])} == {dict, list}:
                yield (name,), given[name], isinstance(given[name], list)
            else:
                yield from (((name, *key), *rest) for key, *rest in _replaced(base[name], given[name]))
