"""Comparison of the recipes of two processes of a run."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, NamedTuple

from mmf_flava.config.secrets import hide_in
from mmf_flava.errors import join_first

# keys whose values may differ between the processes of a run
FREE_KEYS = (
    # rank and device: the kind of the device is compared
    *("device_id", "start_rank", "distributed*", "training.local_rank"),
    # folders; other absolute paths are compared by their last component
    *("config", "env.*", "*_dir"),
    # logs
    *("training.experiment_name", "training.logger_level", "training.log_format", "training.log_detailed_config"),
    *("training.should_not_log", "training.stdout_capture", "training.colored_logs", "training.verbose_dump"),
    *("training.tensorboard", "training.wandb*"),
    # loading
    *("training.num_workers", "training.num_threads", "training.pin_memory", "training.fast_read"),
)
MAX_SHOWN = 200  # characters of a value in a message


class Value(NamedTuple):
    """A value of a recipe: a digest of it, to be compared, and its text without secrets, to be shown."""

    digest: str
    text: str


UNSET = Value("", "no such key")


def comparable_values(written: Any, resolved: Any) -> dict[str, Value]:
    """Return the values of a recipe that all processes must share, by flattened key: ``optimizer.params.lr``.

    Args:
        written: the complete recipe as nested dicts and lists, with interpolations as written. Texts of interpolated
            values are taken from here, because environment variables may contain secrets.
        resolved: the same recipe with its interpolations resolved.
    """
    return {
        key: Value(_digest(value), _text(as_written))
        for key, value, as_written in _flatten(resolved, written, "")
        if not any(fnmatchcase(key, pattern) for pattern in FREE_KEYS)
    }


def find_differences(first: Mapping[str, Value], other: Mapping[str, Value]) -> list[str]:
    """Return the keys whose values differ: those with interpolations last, short ones such as ``model`` first."""
    pairs = {key: (first.get(key, UNSET), other.get(key, UNSET)) for key in sorted({*first, *other})}
    keys = [key for key, (a, b) in pairs.items() if a.digest != b.digest]
    return sorted(keys, key=lambda key: (any("${" in value.text for value in pairs[key]), key.count(".")))


def describe_differences(
    keys: list[str], first: Mapping[str, Value], other: Mapping[str, Value], first_name: str, other_name: str
) -> str:
    """Return a sentence about the keys whose values differ, with the values of the first of these keys.

    Args:
        first_name, other_name: the names of the processes of the values ``first`` and ``other``.
    """
    key, *more = keys
    a, b = (values.get(key, UNSET).text for values in (first, other))
    values = f"{first_name} has {a}, {other_name} has {b}"
    if a == b:
        values = f"{first_name} and {other_name} have different values of {a}"
    also = f" These keys differ too: {join_first(more)}." if more else ""
    return f"{key}: {values}.{also} Start all processes with the same recipe, options and environment variables."


def _flatten(value: Any, written: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the key, the value and the value as written of every entry. Lists without sections are one value."""
    interpolated = isinstance(written, str) and "${" in written
    if isinstance(value, dict) and value:
        for name, child in value.items():
            below = written if interpolated else written[name]
            yield from _flatten(child, below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(child, dict | list) for child in value):
        for number, child in enumerate(value):
            yield from _flatten(child, written if interpolated else written[number], f"{key}[{number}]")
    else:
        yield key, value, written


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(_comparable(value), default=str).encode()).hexdigest()[:16]


def _comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        return PurePath(value).name
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _text(value: Any) -> str:
    value = hide_in(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = re.sub(r"\s+", " ", text) or "an empty text"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
