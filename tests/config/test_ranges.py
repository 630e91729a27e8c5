"""Ranges of config values: limits, choices, lengths, and the keys in the messages."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from mmf_flava.config.ranges import check_ranges, ranged
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError


@dataclass
class Inner:
    share: float = ranged(0.5, at_least=0, below=1)


@dataclass
class Outer:
    count: int = ranged(1, at_least=1)
    limit: int | None = ranged(None, above=0)
    kind: str = ranged("a", choices=["a", "b"])
    scale: list[float] = ranged([0.5, 1.0], above=0, at_most=1, length=2, ascending=True)
    weights: dict[str, float] = ranged({}, above=0)
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)


def test_defaults_and_limits_are_valid():
    check_ranges(Outer(), "here")
    parse_section(Outer, {"count": 1, "limit": 1, "kind": "b", "scale": [1, 1], "weights": {"a": 0.1}}, "here")
    parse_section(Outer, {"inner": {"share": 0.0}, "inners": [{"share": 0.9}]}, "here")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"count": 0}, r"here\.count: must be at least 1, got 0"),
        ({"limit": 0}, r"here\.limit: must be above 0, got 0"),
        ({"kind": "c"}, r"here\.kind: must be one of a, b, got 'c'"),
        ({"scale": [0.5]}, r"here\.scale: must be a list of 2 numbers, each above 0 and at most 1, in ascending order"),
        ({"scale": [1.0, 0.5]}, r"here\.scale: .*in ascending order, got \[1\.0, 0\.5\]"),
        ({"weights": {"x": 0}}, r"here\.weights: must be above 0"),
        ({"inner": {"share": 1.0}}, r"here\.inner\.share: must be at least 0 and below 1, got 1\.0"),
        ({"inners": [{}, {"share": -1}]}, r"here\.inners\[1\]\.share: "),
        ({"inner": {"share": float("nan")}}, r"here\.inner\.share: must be finite, got nan"),
        (
            {"kind": 5},
            r"here\.kind: must be a string, got 5\. Write it in quotes; on the command line as 'here\.kind=\"5\"'",
        ),
        ({"count": 1e3}, r"here\.count: must be an integer, got 1000\.0\. Write 1000\."),
        ({"kind": ""}, r"here\.kind: must not be empty"),
        ({"count": "???"}, r"here\.count must be given"),
        ({"inners": [{"share": "???"}]}, r"here\.inners\[0\]\.share must be given"),
        ("text", r"here: must be a section"),
    ],
)
def test_value_out_of_range_names_the_key(section: Any, message: str):
    with pytest.raises(UserError, match=message):
        parse_section(Outer, section, "here")
