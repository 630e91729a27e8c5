"""State of ``pickle_reader`` while it reads a pickle: the bytes, the stack and the memo."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_GROWTH = 32  # maximum size of the results of functions, per byte of the pickle; a set needs up to 30
MAX_NUMBER = 1024  # maximum length of a number, in bytes
KEY_TYPES = frozenset({str, bytes, int, float, bool, type(None)})
# hash(n) is n below this bound; larger integers can be chosen such that all of them have the same hash
MAX_KEY = 2**61 - 1

Function = Callable[..., Any]


class PickleError(ValueError):
    """A pickle is invalid, or contains something else than the reader accepts; the message is a short reason."""


class Name(NamedTuple):
    """A name in a pickle, such as ``posix.system``, with the function that the reader calls for it, if any.

    A tuple, because a pickle cannot change the items of a tuple.
    """

    module: str
    name: str
    function: Function | None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Unfinished:
    """Base class of objects that get their state from the opcode BUILD, which replaces them by ``finish(state)``."""

    def __init__(self) -> None:
        self.memo_indexes: list[int] = []

    def finish(self, state: Any) -> Any:
        raise NotImplementedError


class PickleStack:
    """State while a pickle is read.

    Args:
        data: bytes that begin with the pickle.
        find_function: returns the function that the pickle may call for a module and a name, or None. The functions
            must check their arguments.
        load_persistent: function for persistent ids; by default they are errors.

    Attributes:
        position: position of the next byte.
        values: number of values that the pickle has created or referenced.
        stack: values since the last mark; ``outer_stacks`` are the values before each mark.
    """

    def __init__(
        self,
        data: bytes,
        find_function: Callable[[str, str], Function | None],
        load_persistent: Function | None = None,
    ) -> None:
        self.data = data
        self.find_function = find_function
        self.load_persistent = load_persistent
        self.position = 0
        self.values = 0
        self.created_bytes = 0
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self.position + count
        if end > len(self.data):
            raise PickleError("the pickle is cut off")
        result = self.data[self.position : end]
        self.position = end
        return result

    def read_integer(self, width: int, signed: bool = False) -> int:
        """Return the next integer of ``width`` bytes."""
        return int.from_bytes(self.read(width), "little", signed=signed)

    def read_counted(self, width: int) -> bytes:
        """Return the bytes after their length, an integer of ``width`` bytes."""
        return self.read(self.read_integer(width))

    def read_line(self) -> bytes:
        """Return the bytes up to the next newline."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise PickleError("the pickle is cut off")
        line = self.read(end - self.position)
        self.position = end + 1
        return line

    def read_number(self) -> bytes:
        """Return the line with a number."""
        return check_number(self.read_line())

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_created(self, value: Any) -> None:
        """Push the result of a function, which may have copied the same data many times."""
        self.created_bytes += sys.getsizeof(value)
        if self.created_bytes > MAX_GROWTH * (len(self.data) + 1024):
            raise PickleError("its objects are much larger than the pickle")
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Return the last ``count`` values."""
        values = self.stack[-count:]
        if len(values) != count:
            raise PickleError("the pickle has too few values for an opcode")
        del self.stack[-count:]
        return values

    def push_mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Return the values since the last mark."""
        values = self.stack
        self.stack = self.outer_stacks.pop()
        return values

    def put(self, index: int) -> None:
        """Store the last value in the memo."""
        value = self.memo[index] = self.stack[-1]
        if isinstance(value, Unfinished):
            value.memo_indexes.append(index)


def check_number(number: bytes) -> bytes:
    """Return ``number``.

    Raises:
        PickleError: it is too long.
    """
    if len(number) > MAX_NUMBER:
        raise PickleError(f"a number has {len(number):,} bytes")
    return number


def check_keys(keys: list[Any]) -> list[Any]:
    """Return ``keys``.

    Raises:
        PickleError: a key has another type than ``KEY_TYPES``, or is a very large integer.
    """
    kinds = set(map(type, keys))
    if invalid := kinds - KEY_TYPES:
        names = ", ".join(sorted(kind.__name__ for kind in invalid))
        raise PickleError(f"a key is of type {names}, expected text or a number")
    if int in kinds and any(type(key) is int and abs(key) >= MAX_KEY for key in keys):
        raise PickleError("a key is an integer of more than 61 bits")
    return keys


def add_items(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    """Set the items of a dictionary after a check of its keys.

    Raises:
        PickleError: a key has another type than ``KEY_TYPES``, or is a very large integer.
        ValueError: there is another number of keys than of values.
    """
    target.update(zip(check_keys(keys), values, strict=True))


def describe(value: Any) -> str:
    """Return a name in a pickle as text, or the type of another value."""
    return str(value)[:200] if type(value) is Name else f"a value of type {type(value).__name__}"
