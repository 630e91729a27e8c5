"""Random changes of a file's bytes: flipped bits, cuts, insertions, numbers, JSON values, and spliced files."""

import random
import re
from collections.abc import Callable

INTEGERS = (0, 1, -1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**45, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b'""', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b"{}",
    b"[]", b"[[]]", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"9223372036854775808", b"35184372088832",
    b'"|O"', b'"<f2"', b'">u2"', b"'|O'", b'"../../../etc/passwd"', b'"/dev/zero"', b"18446744073709551616", b"2",
    b"\xef\xbb\xbf",
)  # fmt: skip
TOKEN = re.compile(rb'"[^"\\\n]{0,80}"|\'[^\'\n]{0,40}\'|-?\d+(?:\.\d+)?|\bnull\b|\btrue\b|\bfalse\b|[\[\]{}():,]')

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def _range(rng: random.Random, data: bytes) -> tuple[int, int]:
    """Return a random range of at least one byte; short ranges are more likely."""
    start = rng.randrange(len(data))
    return start, min(len(data), start + 1 + int(len(data) ** rng.random()))


def flip_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(rng, data)
    value = rng.choice((b"\0", b"\xff", None))
    filler = rng.randbytes(end - start) if value is None else value * (end - start)
    return data[:start] + filler + data[end:]


def set_integer(rng: random.Random, data: bytes, other: bytes) -> bytes:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "little", "big"))
    value = (rng.choice(INTEGERS) & (256**size - 1)).to_bytes(size, order)  # type: ignore[arg-type]
    start = rng.randrange(min(len(data), rng.choice((64, 1024, len(data)))))
    return data[:start] + value + data[start + size :]


def truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.choice((0, 1, rng.randrange(len(data)), len(data) - 1))]


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(rng, data)
    return data[:start] + data[end:]


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 5)) + data[end:]


def move(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(rng, data)
    rest = data[:start] + data[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + data[start:end] + rest[to:]


def insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice((rng.randbytes(rng.randrange(1, 64)), b"\0" * 512, b"\n", b"\r")) + data[start:]


def replace_token(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Replace a number, a string or a bracket of a text or of a header."""
    window = data[: rng.choice((256, 4096, len(data)))]
    if not (tokens := list(TOKEN.finditer(window))):
        return flip_bits(rng, data, other)
    token = rng.choice(tokens)
    value = rng.choice((*VALUES, b"", token.group() * 2, rng.choice(tokens).group()))
    return data[: token.start()] + value + data[token.end() :]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Join the start of a file and the end of another valid file of this format."""
    at = rng.randrange(len(data))
    return data[:at] + other[rng.choice((at, rng.randrange(len(other) + 1))) :]


def replace_file(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return rng.choice((other, b"\0" * len(data), rng.randbytes(len(data)), b"\n" * 1000, b"[" * 1_000_000))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_bits, flip_bits, set_bytes, set_integer, set_integer, truncate, cut, repeat, move, insert,
    replace_token, replace_token, replace_token, splice, replace_file,
)  # fmt: skip


def mutate(rng: random.Random, data: bytes, other: bytes, hostile: bytes) -> bytes:
    """Return ``data`` with one or two random changes.

    Args:
        other: another valid file of the same format.
        hostile: a pickle that executes code. It replaces the file, or is inserted, in 4% of the calls.
    """
    if rng.random() < 0.04:
        at = rng.choice((0, rng.randrange(len(data) + 1)))
        return rng.choice((hostile, data[:at] + hostile + data[at:], data[:at] + hostile + data[at + len(hostile) :]))
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice(MUTATIONS)(rng, data or b"\0", other)
    return data
