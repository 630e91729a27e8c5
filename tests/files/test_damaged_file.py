"""Whatever a parser raises on a damaged file becomes a UserError."""

import errno

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad header"), "bad header"),
        (KeyError("ids"), "KeyError: 'ids'"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
        (AssertionError(), "AssertionError"),
        (ValueError(), "ValueError"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (RuntimeError("a\nb" * 1000), "RuntimeError: a ba b"),
    ],
)
def test_exceptions_become_one_sentence(error, reason):
    with pytest.raises(UserError) as caught, damaged_file("a/b.bin", "archive", "Copy it again."):
        raise error
    message = str(caught.value)
    assert message.startswith("a/b.bin is not a valid archive (") and message.endswith("). Copy it again.")
    assert reason in message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    "error",
    [UserError("a"), MemoryError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), FloatingPointError()],
    ids=repr,
)
def test_other_exceptions_are_raised_unchanged(error):
    with pytest.raises(type(error)) as caught, damaged_file("a", "archive", "", (FloatingPointError,)):
        raise error
    assert caught.value is error
