import os
from pathlib import Path

import pytest

from mmf_flava.files.regular_file import read_regular_file


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_regular_file(tmp_path / "a") == read_regular_file(tmp_path / "link") == b"abc"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"regular file|directory"):
            read_regular_file(path)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "b")
