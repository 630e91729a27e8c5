"""Braces in the names of shards, as a shell and webdataset expand them."""

import re

GROUP = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand_braces(text: str) -> list[str]:
    """``a{0..2}`` is a0, a1, a2; ``{08..10}`` is 08, 09, 10; ``{x,y}`` is x, y. Other braces stay as they are."""
    for group in GROUP.finditer(text):
        if span := RANGE.fullmatch(group[1]):
            choices = _numbers(*span.groups())
        elif "," in group[1]:
            choices = group[1].split(",")
        else:
            continue
        before, after = text[: group.start()], text[group.end() :]
        expanded = [name for choice in choices for name in expand_braces(f"{before}{choice}{after}")]
        return list(dict.fromkeys(expanded))  # of braces in braces the outer ones are expanded again
    return [text]


def _numbers(first: str, last: str) -> list[str]:
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
