"""Whether weights fit a model: all that is missing, extra or of another shape, in one list."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor

from mmf_flava.errors import UserError

MAX_LINES = 16


@dataclass
class Fit:
    """What does not fit; ``allowed`` is what the caller has named."""

    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshaped: dict[str, str] = field(default_factory=dict)
    allowed: list[str] = field(default_factory=list)

    @property
    def problems(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.misshaped)

    def report(self) -> str:
        """Grouped by kind, layers of the same name in one line."""
        lines: list[str] = []
        for title, keys in (("missing", self.missing), ("unknown", self.extra), ("of another shape", self.misshaped)):
            if not keys:
                continue
            notes = keys if isinstance(keys, dict) else {}
            lines.append(f"  {title}: {len(keys)}")
            lines += [f"    {line}" for line in _grouped(keys, notes)]
        return "\n".join(lines)


def compare(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    unknown: Iterable[str] = (),
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
) -> Fit:
    """A model's tensors against given ones.

    Args:
        unknown: further names in the file that nobody knows.
        allow_missing: patterns (``heads.*``) of names that may be missing or of another shape: the model keeps its own.
        allow_extra: patterns of names that may be in the file without being used.
    """
    missing_patterns, extra_patterns = list(allow_missing), list(allow_extra)
    fit = Fit()
    shapes = {
        key: f"{tuple(given[key].shape)}, the model's is {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    }
    for key in own:
        if key not in given:
            (fit.allowed if _any(key, missing_patterns) else fit.missing).append(key)
        elif key in shapes and _any(key, missing_patterns):
            fit.allowed.append(key)
        elif key in shapes:
            fit.misshaped[key] = shapes[key]
    for key in [*(key for key in given if key not in own), *unknown]:
        (fit.allowed if _any(key, extra_patterns) else fit.extra).append(key)
    return fit


def demand(fit: Fit, source: str, model: str = "the model") -> None:
    """Raises the one list.

    Raises:
        UserError: something does not fit.
    """
    if fit.problems:
        wishes = [
            name for name, keys in (("allow_missing", fit.missing or fit.misshaped), ("allow_extra", fit.extra)) if keys
        ]
        part = next(iter([*fit.missing, *fit.misshaped, *fit.extra])).rpartition(".")[0] or "*"
        raise UserError(
            f"{source} does not fit {model}; names concerned: {fit.problems}.\n{fit.report()}\n"
            f"Name what is meant to be so with {' and '.join(wishes)}, e.g. ['{part}.*']."
        )


def _any(key: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _grouped(keys: Iterable[str], notes: Mapping[str, str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(re.sub(r"\.\d+\.", ".#.", key), []).append(key)
    lines = []
    for name, members in groups.items():
        text = members[0] if len(members) == 1 else f"{name} ({len(members)} of them)"
        lines.append(f"{text} is {notes[members[0]]}" if members[0] in notes else text)
    if len(lines) > MAX_LINES // 2:
        rest = len(lines) - MAX_LINES // 2
        lines = [*lines[: MAX_LINES // 2], f"... and {rest} more such lines"]
    return lines
