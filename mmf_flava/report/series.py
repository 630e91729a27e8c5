"""The records of a long run, in bounded memory."""

from collections import deque
from typing import Generic, TypeVar
from zlib import crc32

LIMIT, ENDS = 10_000, 100
T = TypeVar("T")


class Series(Generic[T]):
    """Values by update. Of more than ``LIMIT`` values, a pseudo-random part is kept, and the first and last ``ENDS``.

    Every second value would not do: a run that alternates between two datasets would lose the losses of one of them.
    """

    def __init__(self) -> None:
        self._first: dict[int, T] = {}
        self._drawn: dict[int, T] = {}
        self._last: deque[tuple[int, T]] = deque(maxlen=ENDS)
        self._divisor = 1  # one of so many values is kept, a power of two

    def add(self, update: int, value: T) -> None:
        """Add the value of an update, or replace it."""
        if update in self._first or len(self._first) < ENDS:
            self._first[update] = value
        self._last.append((update, value))
        if self._is_drawn(update):
            self._drawn[update] = value
        while len(self._drawn) > LIMIT:
            self._divisor *= 2
            self._drawn = {at: drawn for at, drawn in self._drawn.items() if self._is_drawn(at)}

    def cut(self, update: int) -> None:
        """Remove the values of ``update`` and of later updates."""
        self._first = {at: value for at, value in self._first.items() if at < update}
        self._drawn = {at: value for at, value in self._drawn.items() if at < update}
        self._last = deque((entry for entry in self._last if entry[0] < update), maxlen=ENDS)

    def items(self) -> list[tuple[int, T]]:
        """Return the kept updates and their values, sorted by update."""
        return sorted((self._drawn | self._first | dict(self._last)).items(), key=lambda entry: entry[0])

    def _is_drawn(self, update: int) -> bool:
        # a multiple of the divisor is also one of half of it, so a value that was dropped is never drawn again
        return crc32(str(update).encode()) % self._divisor == 0
