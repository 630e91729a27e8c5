"""Suggestions for misspelt config keys and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def close_matches(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return up to three known words similar to ``word``, most similar first. Case is ignored."""
    words = {str(name).lower(): str(name) for name in known}
    return [words[match] for match in difflib.get_close_matches(word.lower(), words, 3, cutoff)]


def did_you_mean(words: list[str]) -> str:
    """Return the question ``did you mean a or b?`` for the words a and b."""
    return f"did you mean {' or '.join(words)}?"
