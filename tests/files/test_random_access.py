import os
import pickle

import pytest

from mmf_flava.files.random_access import RandomAccessFile


def test_parts_of_a_file_are_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    file = RandomAccessFile(path)
    assert [file.read(2, 3), file.read(8, 5), file.read(0, 1)] == [b"234", b"89", b"0"]
    copy = pickle.loads(pickle.dumps(file))
    assert copy.read(2, 3) == b"234"
    before = len(os.listdir("/proc/self/fd"))
    file.close()
    del copy
    assert len(os.listdir("/proc/self/fd")) == before - 2
    assert file.read(2, 3) == b"234"


def test_missing_file_is_an_error_of_the_first_read(tmp_path):
    file = RandomAccessFile(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        file.read(0, 1)
