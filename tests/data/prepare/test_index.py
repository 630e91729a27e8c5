import os

import pytest

from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.shard_index import index_path, read_index
from mmf_flava.data.shard_writer import ShardWriter


@pytest.fixture
def folder(tmp_path):
    """Three shards of two records: the first has an index, the last is truncated within its second record."""
    for name in "abc":
        with ShardWriter(tmp_path / f"{name}.tar") as shard:
            for key in "12":
                shard.write(key, {"txt": b"x" * 600})
    os.truncate(tmp_path / "c.tar", 512 + 1024 + 512 + 10)
    for name in "bc":
        index_path(tmp_path / f"{name}.tar").unlink()
    return tmp_path


def test_index_command(folder, capsys):
    paths = [str(folder), str(folder / "[ab].tar")]  # duplicates count once
    assert main(["index", *paths, "--quiet"]) == 0
    counts = "3 shards, 6 records: 2 indexes written, 1 existed already"
    assert capsys.readouterr().out == f"{counts}; 1 shards truncated ({folder / 'c.tar'}).\n"
    assert read_index(folder / "b.tar").count == 2
    assert main(["index", str(folder / "a.tar"), str(folder / "b.tar"), "--quiet"]) == 0
    counts = "2 shards, 4 records: 0 indexes written, 2 existed already"
    assert capsys.readouterr().out == f"{counts}; 0 shards truncated.\n"


def test_errors_name_the_path(folder, capsys):
    assert main(["index", str(folder / "nowhere")]) == 2
    assert "nowhere: no *.tar files found" in capsys.readouterr().err
    index_path(folder / "b.tar").mkdir()
    assert main(["index", str(folder / "b.tar"), "--quiet"]) == 2
    assert "b.tar cannot be written" in capsys.readouterr().err
