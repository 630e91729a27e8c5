"""The record boundary: any exception of a record becomes a BadRecord, apart from those that must stop a run."""

import errno
import pickle

import pytest

from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.errors import UserError


class PanicException(BaseException):
    """As in libraries that are written in Rust."""


class Unprintable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("image"), "KeyError: 'image'"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (StopIteration(), "StopIteration"),
        (OSError(errno.EIO, "bad disk"), "OSError: [Errno 5] bad disk"),
        (Unprintable(), "Unprintable"),
        (PanicException("index out of range"), "PanicException: index out of range"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 200 + "..."),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_any_exception_becomes_a_bad_record(error, text):
    with pytest.raises(BadRecord) as caught, record_boundary("train/7"):
        raise error
    assert caught.value.reason == Reason.UNEXPECTED
    assert str(caught.value) == f"train/7: unexpected error ({text})"
    assert caught.value.key == "train/7"
    assert caught.value.__cause__ is error
    assert caught.value.failure.type == type(error).__name__
    assert caught.value.failure.place.startswith(f"{__file__}:")
    assert "raise error" in caught.value.failure.traceback


@pytest.mark.parametrize(
    "error",
    [
        BadRecord(Reason.NO_IMAGE, "no image"),
        UserError("missing"),
        MemoryError(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        OSError(errno.ENOSPC, "no space"),
        OSError(errno.EDQUOT, "quota"),
    ],
)
def test_exceptions_that_the_record_does_not_cause_pass_through(error):
    with pytest.raises(type(error)) as caught, record_boundary("train/7"):
        raise error
    assert caught.value is error


def test_a_bad_record_can_be_sent_from_a_worker():
    with pytest.raises(BadRecord) as caught, record_boundary("\udcff"):
        raise ValueError("\udcff")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, copy.message, copy.key, copy.failure) == (
        caught.value.reason,
        "\\udcff: unexpected error (ValueError: \\udcff)",
        "\udcff",
        caught.value.failure,
    )


def test_a_full_disk_passes_through_as_the_cause_of_a_bad_record():
    full, described = OSError(errno.ENOSPC, "no space"), UserError("the cache is full")
    with pytest.raises(OSError, match="no space"), record_boundary("train/7"):
        raise BadRecord(Reason.VANISHED, "shard") from full
    described.__cause__ = full
    with pytest.raises(UserError, match="the cache is full"), record_boundary("train/7"):
        raise BadRecord(Reason.VANISHED, "shard") from described
    with pytest.raises(BadRecord, match="shard"), record_boundary("train/7"):
        raise BadRecord(Reason.VANISHED, "shard") from OSError(errno.EIO, "broken")


def test_long_messages_are_shortened():
    message = BadRecord(Reason.VANISHED, f"/data/{'a' * 100_000}.png cannot be read: File name too long").message
    assert len(message) == 1003
    assert message.startswith("/data/aaa") and message.endswith("a.png cannot be read: File name too long")
