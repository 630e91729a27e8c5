"""What somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The up to three known words nearest to ``word``, nearest first; words that differ only by case count as equal."""
    words = {str(name).lower(): str(name) for name in known}
    return [words[match] for match in difflib.get_close_matches(word.lower(), words, 3, cutoff)]


def did_you_mean(words: list[str]) -> str:
    return f"did you mean {' or '.join(words)}?"
