import os
import shutil

import pytest
from tqdm import tqdm

from mmf_flava.data import shard_index
from mmf_flava.data.prepare import index
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.index import build_indexes
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


@pytest.mark.parametrize("executor", [[], ["--executor", "local:1"], ["--executor", "local:2"]])
def test_index_command(folder, capsys, executor):
    paths = [str(folder), str(folder / "[ab].tar")]  # duplicates count once
    assert main(["index", *paths, "--quiet", *executor]) == 0
    counts = "3 shards, 6 records: 2 indexes written, 1 existed already"
    assert capsys.readouterr().out == f"{counts}; 1 shards truncated ({folder / 'c.tar'}).\n"
    assert read_index(folder / "b.tar").count == 2
    assert main(["index", str(folder / "a.tar"), str(folder / "b.tar"), "--quiet"]) == 0
    counts = "2 shards, 4 records: 0 indexes written, 2 existed already"
    assert capsys.readouterr().out == f"{counts}; 0 shards truncated.\n"


@pytest.mark.parametrize("executor", [[], ["--executor", "local:1"]])
def test_errors_name_the_path(folder, capsys, executor):
    assert main(["index", str(folder / "nowhere"), *executor]) == 2
    assert "nowhere: no *.tar files found" in capsys.readouterr().err
    index_path(folder / "b.tar").mkdir()
    assert main(["index", str(folder / "b.tar"), "--quiet", *executor]) == 2
    assert "b.tar cannot be written" in capsys.readouterr().err


def test_each_index_is_built_once(folder, monkeypatch):
    """A second process with the same command begins in the middle of the first."""
    scanned, scan, indexes = [], shard_index.scan_shard, [folder / f"{number}.tar" for number in range(9)]
    for path in indexes:
        shutil.copy(folder / "a.tar", path)

    def scan_and_begin(path):
        scanned.append(path)
        if len(scanned) == 3:
            build_indexes([other for other in indexes if other != path])  # its lock is held
        return scan(path)

    monkeypatch.setattr(shard_index, "scan_shard", scan_and_begin)
    build_indexes(indexes)
    assert sorted(scanned) == indexes


def test_progress_of_workers_is_that_of_the_indexes(folder, monkeypatch):
    monkeypatch.setattr(index, "MAX_LOOKS", 2)
    shards = [folder / f"{name}.tar" for name in "abc"]
    with tqdm(total=3, disable=True) as bar:
        watch = index._Watch(shards, bar)
        assert [watch.update(), watch.update()] == [True, False], "a has an index"
        build_indexes([shards[1]])
        assert [watch.update() for _ in range(3)].count(True) == 1
        build_indexes(shards)
        assert watch.update() and not watch.update()
