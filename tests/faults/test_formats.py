"""A short run of the fuzzer of all formats; ``make chaos`` runs 1,500 changes per format."""

import os
import pickle
import signal

import pytest

from mmf_flava.errors import UserError
from tests.faults import format_fuzzer
from tests.faults.file_format import Format
from tests.faults.formats import FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_are_refused_or_deliver_their_untouched_records(name, tmp_path):
    result = format_fuzzer.fuzz(name, 0, 40, tmp_path)
    assert result["passed"], result["failures"]
    assert result.get("refused", 0) + result.get("accepted", 0) == 40


class Faulty(Format):
    """A reader with one fault per content of its file."""

    name, targets = "faulty", ("file",)

    def make(self, folder, seed):
        (folder / "file").write_bytes(b"valid")

    def read(self, folder):
        content = (folder / "file").read_bytes()
        if content == b"memory":
            return {0: len(bytearray(2 * 10**9))}
        if content == b"signal":
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith(b"\x80"):
            pickle.loads(content)
        if content == b"refused":
            raise UserError("file is not valid. Copy it again.")
        if content == b"traceback":
            raise KeyError(1)
        return {0: content}


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"valid", "accepted"),
        (b"refused", "refused"),
        (b"other", "wrong records"),
        (b"traceback", "traceback"),
        (b"memory", "more than 1,000,000,000 bytes"),
        (b"signal", "exit code -9"),
        (None, "code was executed"),
    ],
)
def test_the_fuzzer_finds_faults(content, outcome, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "faulty", Faulty())
    monkeypatch.setattr(
        format_fuzzer, "mutate", lambda rng, data, other, hostile: hostile if content is None else content
    )
    result = format_fuzzer.fuzz("faulty", 0, 2, tmp_path)
    if outcome in format_fuzzer.GOOD:
        assert result["passed"] and result[outcome] == 2
    else:
        assert not result["passed"] and result["failed"] == 2  # the second change is read by a new child
        assert all(outcome in failure for failure in result["failures"].values())
