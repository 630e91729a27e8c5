"""Ranges of config values. A config dataclass declares them on its fields; ``check_ranges`` validates an instance."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from mmf_flava.errors import UserError

KEY = "range"


@dataclass(frozen=True)
class Range:
    """Valid values of a config key. For lists and mappings, the limits and choices apply to each element.

    Attributes:
        at_least, at_most: inclusive limits of a number.
        above, below: exclusive limits of a number.
        choices: allowed values.
        also: a value that is valid although the limits exclude it, such as -1 for "all".
        length: number of elements of a list.
        non_empty: whether a list must have an element.
        ascending: whether each element of a list must be at least the previous one.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    also: float | None = None
    length: int | None = None
    non_empty: bool = False
    ascending: bool = False

    def __str__(self) -> str:
        if self.choices is not None:
            text = f"one of {', '.join(map(str, self.choices))}"
        else:
            limits = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
            text = " and ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
        if self.also is not None:
            text += f" or {self.also:g}"
        if self.length is not None:
            text = f"a list of {self.length} numbers" + (f", each {text}" if text else "")
        if self.non_empty:
            text = "a list of at least one value" + (f", each {text}" if text else "")
        return text + (", in ascending order" if self.ascending else "")

    def contains(self, value: Any) -> bool:
        """Return whether the value is valid. None is valid, because the type decides whether it is allowed."""
        if isinstance(value, Mapping):
            return all(map(self._contains, value.values()))
        if isinstance(value, Sequence) and not isinstance(value, str):
            if (self.length is not None and len(value) != self.length) or (self.non_empty and not value):
                return False
            return all(map(self._contains, value)) and not (self.ascending and list(value) != sorted(value))
        return self._contains(value)

    def _contains(self, value: Any) -> bool:
        if value is None or (self.also is not None and value == self.also):
            return True
        if self.choices is not None:
            return value in self.choices
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def ranged(
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    also: float | None = None,
    length: int | None = None,
    non_empty: bool = False,
    ascending: bool = False,
) -> Any:
    """Return a dataclass field with a range. A list or dict as ``default`` is copied for each instance."""
    allowed = None if choices is None else tuple(choices)
    metadata = {KEY: Range(at_least, above, at_most, below, allowed, also, length, non_empty, ascending)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_ranges(config: Any, where: str) -> None:
    """Check the values of a config dataclass and of its nested dataclasses.

    If a dataclass has a method ``check(where)``, which checks combinations of keys, the method is called last.

    Raises:
        UserError: a value is invalid or keys do not fit together. The message names the key, whose full name
            starts with ``where``.
    """
    for item in fields(config):
        value, key = getattr(config, item.name), f"{where}.{item.name}"
        for child, child_key in _dataclasses(value, key):
            check_ranges(child, child_key)
        check_value(value, item.metadata.get(KEY), key)
    if hasattr(config, "check"):
        config.check(where)


def check_value(value: Any, limits: Range | None, key: str) -> None:
    """Raise UserError if the value of a key is not finite or not in its range. Its type must have been checked."""
    if not all(map(math.isfinite, _floats(value))):
        raise UserError(f"{key}: must be finite, got {value}.")
    if limits is not None and not limits.contains(value):
        raise UserError(f"{key}: must be {limits}, got {value!r}.")


def _dataclasses(value: Any, key: str) -> Iterator[tuple[Any, str]]:
    if is_dataclass(value):
        yield value, key
    elif isinstance(value, list):
        yield from ((item, f"{key}[{n}]") for n, item in enumerate(value) if is_dataclass(item))
    elif isinstance(value, dict):
        yield from ((item, f"{key}.{name}") for name, item in value.items() if is_dataclass(item))


def _floats(value: Any) -> list[float]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, float)]
