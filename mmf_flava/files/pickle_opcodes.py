"""Opcodes of pickles that ``pickle_reader`` accepts. The omitted ones occur only in pickles of objects."""

import codecs
import pickle
import struct
from collections.abc import Callable
from typing import Any

from mmf_flava.files.pickle_stack import (
    Name,
    PickleError,
    PickleStack,
    Unfinished,
    add_items,
    check_keys,
    check_number,
    describe,
)


def _push_integer_line(stack: PickleStack) -> None:
    line = stack.read_number()
    stack.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L")))


def _push_long(stack: PickleStack, width: int) -> None:
    stack.push(int.from_bytes(check_number(stack.read_counted(width)), "little", signed=True))


def _push_old_string(stack: PickleStack, value: bytes) -> None:
    """Push a ``str`` of Python 2: text if it is ASCII, else bytes, because its encoding is unknown."""
    stack.push(value.decode("ascii") if value.isascii() else value)


def _push_string_line(stack: PickleStack) -> None:
    line = stack.read_line()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise PickleError("a string has no quotes")
    _push_old_string(stack, codecs.escape_decode(line[1:-1])[0])  # type: ignore[attr-defined]


def _push_text(stack: PickleStack, value: bytes) -> None:
    stack.push(value.decode("utf-8", "surrogatepass"))


def _append(stack: PickleStack, values: list[Any]) -> None:
    target = stack.stack[-1]
    if type(target) is not list:
        raise PickleError(f"values are appended to {describe(target)}")
    target.extend(values)


def _set_items(stack: PickleStack, values: list[Any]) -> None:
    target = stack.stack[-1]
    if type(target) is not dict:
        raise PickleError(f"keys are set in {describe(target)}")
    add_items(target, values[::2], values[1::2])


def _add_members(stack: PickleStack) -> None:
    members = stack.pop_mark()
    target = stack.stack[-1]
    if type(target) is not set:
        raise PickleError(f"members are added to {describe(target)}")
    target.update(check_keys(members))


def _to_dict(values: list[Any]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    add_items(result, values[::2], values[1::2])
    return result


def _push_name(stack: PickleStack, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str:
        raise PickleError("a name is not text")
    stack.push(Name(module, name, stack.find_function(module, name)))


def _call(stack: PickleStack) -> None:
    function, arguments = stack.pop(2)
    if type(arguments) is not tuple:
        raise PickleError("a call has no tuple of arguments")
    if type(function) is not Name or function.function is None:
        # copyreg._reconstructor(Class, object, None): the name of the class says more
        by_copyreg = type(function) is Name and function.name == "_reconstructor" and arguments
        raise PickleError(f"it contains an object of {describe(arguments[0] if by_copyreg else function)}")
    stack.push_created(function.function(*arguments))


def _build(stack: PickleStack) -> None:
    target, state = stack.pop(2)
    if not isinstance(target, Unfinished):
        raise PickleError(f"it contains a state for {describe(target)}")
    result = target.finish(state)
    for index in target.memo_indexes:
        stack.memo[index] = result
    stack.push_created(result)


def _push_persistent(stack: PickleStack) -> None:
    if stack.load_persistent is None:
        raise PickleError("it refers to data outside the pickle by a persistent id")
    stack.push(stack.load_persistent(*stack.pop(1)))


OPERATIONS: dict[bytes, Callable[[PickleStack], Any]] = {
    pickle.PROTO: lambda s: s.read(1),
    pickle.FRAME: lambda s: s.read(8),
    pickle.NONE: lambda s: s.push(None),
    pickle.NEWTRUE: lambda s: s.push(True),
    pickle.NEWFALSE: lambda s: s.push(False),
    pickle.INT: _push_integer_line,
    pickle.LONG: _push_integer_line,
    pickle.BININT: lambda s: s.push(s.read_integer(4, signed=True)),
    pickle.BININT1: lambda s: s.push(s.read_integer(1)),
    pickle.BININT2: lambda s: s.push(s.read_integer(2)),
    pickle.LONG1: lambda s: _push_long(s, 1),
    pickle.LONG4: lambda s: _push_long(s, 4),
    pickle.FLOAT: lambda s: s.push(float(s.read_number())),
    pickle.BINFLOAT: lambda s: s.push(struct.unpack(">d", s.read(8))[0]),
    pickle.UNICODE: lambda s: s.push(s.read_line().decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: lambda s: _push_text(s, s.read_counted(1)),
    pickle.BINUNICODE: lambda s: _push_text(s, s.read_counted(4)),
    pickle.BINUNICODE8: lambda s: _push_text(s, s.read_counted(8)),
    pickle.STRING: _push_string_line,
    pickle.BINSTRING: lambda s: _push_old_string(s, s.read_counted(4)),
    pickle.SHORT_BINSTRING: lambda s: _push_old_string(s, s.read_counted(1)),
    pickle.BINBYTES: lambda s: s.push(s.read_counted(4)),
    pickle.SHORT_BINBYTES: lambda s: s.push(s.read_counted(1)),
    pickle.BINBYTES8: lambda s: s.push(s.read_counted(8)),
    pickle.BYTEARRAY8: lambda s: s.push(bytearray(s.read_counted(8))),
    pickle.MARK: lambda s: s.push_mark(),
    pickle.POP: lambda s: s.pop(1),
    pickle.POP_MARK: lambda s: s.pop_mark(),
    pickle.EMPTY_TUPLE: lambda s: s.push(()),
    pickle.TUPLE1: lambda s: s.push(tuple(s.pop(1))),
    pickle.TUPLE2: lambda s: s.push(tuple(s.pop(2))),
    pickle.TUPLE3: lambda s: s.push(tuple(s.pop(3))),
    pickle.EMPTY_LIST: lambda s: s.push([]),
    pickle.EMPTY_DICT: lambda s: s.push({}),
    pickle.EMPTY_SET: lambda s: s.push(set()),
    pickle.TUPLE: lambda s: s.push(tuple(s.pop_mark())),
    pickle.LIST: lambda s: s.push(s.pop_mark()),
    pickle.DICT: lambda s: s.push(_to_dict(s.pop_mark())),
    pickle.FROZENSET: lambda s: s.push(frozenset(check_keys(s.pop_mark()))),
    pickle.APPEND: lambda s: _append(s, s.pop(1)),
    pickle.APPENDS: lambda s: _append(s, s.pop_mark()),
    pickle.SETITEM: lambda s: _set_items(s, s.pop(2)),
    pickle.SETITEMS: lambda s: _set_items(s, s.pop_mark()),
    pickle.ADDITEMS: _add_members,
    pickle.GET: lambda s: s.push(s.memo[int(s.read_number())]),
    pickle.BINGET: lambda s: s.push(s.memo[s.read_integer(1)]),
    pickle.LONG_BINGET: lambda s: s.push(s.memo[s.read_integer(4)]),
    pickle.PUT: lambda s: s.put(int(s.read_number())),
    pickle.BINPUT: lambda s: s.put(s.read_integer(1)),
    pickle.LONG_BINPUT: lambda s: s.put(s.read_integer(4)),
    pickle.MEMOIZE: lambda s: s.put(len(s.memo)),
    pickle.GLOBAL: lambda s: _push_name(s, s.read_line().decode(), s.read_line().decode()),
    pickle.STACK_GLOBAL: lambda s: _push_name(s, *s.pop(2)),
    pickle.REDUCE: _call,
    pickle.NEWOBJ: _call,
    pickle.BUILD: _build,
    pickle.BINPERSID: _push_persistent,
}
NAMES = {
    value[0]: name
    for name, value in vars(pickle).items()
    if name.isupper() and type(value) is bytes and len(value) == 1
}
