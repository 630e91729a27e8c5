"""Brace expansion for shard names, as in shells and webdataset."""

import re

from mmf_flava.errors import UserError

GROUP = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
MAX_NAMES = 1_000_000


def expand_braces(text: str) -> list[str]:
    """Expand braces: ``a{0..2}`` to a0, a1, a2; ``{08..10}`` to 08, 09, 10; ``{x,y}`` to x, y.

    Other braces are left unchanged.

    Raises:
        UserError: the text expands to more than ``MAX_NAMES`` names.
    """
    names: dict[str, None] = {}  # expanding nested braces from the inside creates duplicates
    pending, count = [text], 0
    while pending:
        current = pending.pop()
        for group in GROUP.finditer(current):
            numbers, width = _parse_range(group[1])
            choices = group[1].split(",")
            if not numbers and len(choices) == 1:
                continue
            count += len(numbers) or len(choices)
            if count > MAX_NAMES:
                raise UserError(f"{text}: the braces expand to more than {MAX_NAMES:,} names. Correct them.")
            choices = [f"{number:0{width}d}" for number in numbers] or choices
            before, after = current[: group.start()], current[group.end() :]
            pending += [f"{before}{choice}{after}" for choice in reversed(choices)]
            break
        else:
            names[current] = None
    return list(names)


def _parse_range(group: str) -> tuple[range, int]:
    """Return the numbers of a range such as 08..10 and their width; an empty range for other texts."""
    match = RANGE.fullmatch(group)
    if not match:
        return range(0), 0
    first, last = match.groups()
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    step = 1 if int(first) <= int(last) else -1
    return range(int(first), int(last) + step, step), max(len(first), len(last)) if padded else 0
