"""Brace expansion for shard names, as in shells and webdataset."""

import re

GROUP = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand_braces(text: str) -> list[str]:
    """Expand braces: ``a{0..2}`` to a0, a1, a2; ``{08..10}`` to 08, 09, 10; ``{x,y}`` to x, y.

    Other braces are left unchanged.
    """
    for group in GROUP.finditer(text):
        if match := RANGE.fullmatch(group[1]):
            choices = _expand_range(*match.groups())
        elif "," in group[1]:
            choices = group[1].split(",")
        else:
            continue
        before, after = text[: group.start()], text[group.end() :]
        expanded = [name for choice in choices for name in expand_braces(f"{before}{choice}{after}")]
        return list(dict.fromkeys(expanded))  # expanding nested braces from the inside creates duplicates
    return [text]


def _expand_range(first: str, last: str) -> list[str]:
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
