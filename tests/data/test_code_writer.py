"""Writing of cached codes: several writers, resuming, and what a killed process leaves."""

import os
import signal

import numpy as np
import pytest

from mmf_flava.data import code_writer
from mmf_flava.data.code_writer import CodeWriter
from mmf_flava.data.codes import NO_CODE, CodeFile, read_header
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from tests.data.test_codes import CODEBOOK, CODES, HEADER, write
from tests.processes import SERVER


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_process(function, *arguments):
    """Run a function in another process, as locks are held by processes. Return its exit code."""
    child = SERVER.Process(target=function, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def write_records(writer, *records):
    for record in records:
        writer.write(record, CODES[record])


def test_only_saved_records_are_not_computed_again(tmp_path):
    with pytest.raises(RuntimeError), CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        write_records(writer, 0, 3)
        raise RuntimeError  # after an exception nothing is lost
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.pending(0, 5).tolist() == [1, 2, 4] and not writer.finish()
        write_records(writer, 1)
        os.close(writer._codes)  # lost, as in a power failure
        writer._unsaved, writer._codes = [], -1
    with pytest.raises(UserError, match="no completed codes"):
        CodeFile(tmp_path, "pmd-train", HEADER)
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.pending(1, 5).tolist() == [1, 2, 4]
    write(tmp_path)
    assert names(tmp_path) == ["pmd-train.codes", "pmd-train.json"]
    assert CodeFile(tmp_path, "pmd-train", HEADER).read(4, 1).tolist() == CODES[4, 1].tolist()
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.finished and writer.finish() and not len(writer.pending(0, 5))
    assert names(tmp_path) == ["pmd-train.codes", "pmd-train.json"]


def claim_others(folder):
    """Exit with 0 if exactly the records 0 and 4 can be claimed."""
    with CodeWriter(folder, "pmd-train", HEADER) as writer:
        claimed = [record for record in range(5) if writer.claim(record, record + 1)]
        write_records(writer, *claimed)
        os._exit(0 if claimed == [0, 4] and not writer.finish() else 1)


def test_processes_claim_different_records_and_the_last_one_renames(tmp_path):
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.claim(1, 4)
        assert in_process(claim_others, tmp_path) == 0
        assert writer.pending(0, 5).tolist() == [1, 2, 3]
        write_records(writer, 1, 2, 3)
        assert writer.finish()
    assert np.fromfile(tmp_path / "pmd-train.codes", "<u2").tolist() == CODES.reshape(-1).tolist()


def claim_and_be_killed(folder):
    writer = CodeWriter(folder, "pmd-train", HEADER)
    writer.claim(0, 5)
    write_records(writer, 0)
    writer.save_progress()
    write_records(writer, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_records_of_a_killed_process_can_be_claimed(tmp_path):
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert in_process(claim_and_be_killed, tmp_path) == -signal.SIGKILL
        assert writer.claim(0, 5) and writer.pending(0, 5).tolist() == [1, 2, 3, 4]


def finish_and_be_killed(folder, moment):
    writer = CodeWriter(folder, "pmd-train", HEADER)
    write_records(writer, *range(5))
    module = code_writer.atomic if moment == "write_json" else os
    setattr(module, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    writer.finish()


@pytest.mark.parametrize("moment", ["replace", "write_json", "unlink"])
def test_kill_while_finishing_loses_nothing(tmp_path, moment):
    assert in_process(finish_and_be_killed, tmp_path, moment) == -signal.SIGKILL
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert not writer.count_pending() and writer.finish()
    assert names(tmp_path) == ["pmd-train.codes", "pmd-train.json"]
    assert CodeFile(tmp_path, "pmd-train", HEADER).read(4, 1).tolist() == CODES[4, 1].tolist()


def test_other_settings_and_damaged_progress(tmp_path):
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        write_records(writer, 0)
    other = {**HEADER, "codebook": {**CODEBOOK, "sha256": "xy"}}
    with pytest.raises(
        UserError, match=r"a different codebook\. Expected codebook\.sha256 xy, got ab.*start from the first record"
    ):
        CodeWriter(tmp_path, "pmd-train", other)
    progress, partial = tmp_path / "pmd-train.partial", tmp_path / "pmd-train.codes.partial"
    progress.write_bytes(progress.read_bytes()[:-1])  # as a process leaves it that is killed while it creates the file
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.count_pending() == 5
        write_records(writer, 0)
    partial.unlink()
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert writer.count_pending() == 5, "the codes of the saved record were deleted"
    for content in (b"\n", b"{", b"[]\n", b"\xff" * 100):
        progress.write_bytes(content)
        with pytest.raises(UserError, match=r"partial.*Or delete .*start from the first record"):
            CodeWriter(tmp_path, "pmd-train", HEADER)


def test_bad_records_are_counted_in_the_header(tmp_path):
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        write_records(writer, 0, 1, 2)
        for record, reason in ((3, Reason.NO_IMAGE), (4, Reason.UNEXPECTED)):
            writer.write(record, np.full((2, 36), NO_CODE), reason)
        writer.finish()
    assert read_header(tmp_path / "pmd-train.json")["bad"] == {"no image": 1, "unexpected": 1}
    with pytest.raises(BadRecord, match="record 3"):
        CodeFile(tmp_path, "pmd-train", HEADER).read(3, 0)


def test_file_system_without_locks(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(code_writer.fcntl, "lockf", lockf)
    with CodeWriter(tmp_path, "pmd-train", HEADER) as writer:
        assert not writer.has_locks
        assert writer.claim(0, 2, own=True) and not writer.claim(2, 5, own=False)
        write_records(writer, *range(5))
        assert writer.finish()
    assert names(tmp_path) == ["pmd-train.codes", "pmd-train.json"]
