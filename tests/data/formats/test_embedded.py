import errno
import os
import random
import shutil
import signal
import sys
import threading

import pytest

from mmf_flava.data.formats import embedded
from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError
from mmf_flava.files.download import default_cache_dir

from .toys import delivered, expected, make_pets

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
PETS = make_pets(12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "SHARD", 5)


@pytest.fixture
def pets(tmp_path):
    return write(tmp_path / "pets.parquet")


def write(path, pets=PETS):
    names = ("image", "caption", "label", "id")
    columns = {name: [getattr(pet, name) for pet in pets] for name in names}
    parquet.write_table(arrow.table(columns), path)
    return path


def read(path):
    return delivered(ShardReader(embedded_shards(path)))


def test_shards_are_written_once(pets, monkeypatch):
    first = embedded_shards(pets)
    assert [shard.name for shard in first] == ["00000.tar", "00001.tar", "00002.tar"]
    assert first[0].is_relative_to(default_cache_dir()) and first[0].parent.name.startswith("pets.parquet-")
    monkeypatch.setattr(embedded, "EmbeddedImages", None)
    assert embedded_shards(pets) == first


def test_changed_files_and_other_columns_are_written_again(pets):
    first = embedded_shards(pets)
    assert embedded_shards(pets, {"caption": "label"})[0].parent != first[0].parent
    write(pets, PETS[:7])
    os.utime(pets, ns=(0, 0))
    assert embedded_shards(pets)[0].parent != first[0].parent
    assert read(pets) == expected(PETS[:7])


def test_shards_that_were_deleted_are_written_again(pets):
    shards = embedded_shards(pets)
    shards[1].unlink()
    assert read(pets) == expected(PETS)
    shards[0].with_name("manifest.json").write_text("{")
    assert read(pets) == expected(PETS)


def test_killed_and_concurrent_processes_write_the_same_shards(pets):
    """Kill processes at random file accesses; others that wait or start later finish the shards."""
    rng = random.Random(0)
    for _ in range(12):
        children = [_fork(pets, rng.randrange(1, 90)) for _ in range(2)]
        for child in children:
            os.waitpid(child, 0)
    assert read(pets) == expected(PETS)
    assert sorted(path.name for path in embedded_shards(pets)[0].parent.iterdir() if path.suffix != ".index") == [
        *("00000.tar", "00001.tar", "00002.tar", "manifest.json")
    ]


def _fork(path, steps):
    """Fork a process that reads the shards and is killed at a file access."""
    child = os.fork()
    if child:
        return child
    count = 0

    def audit(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            count += 1
            if count == steps:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    try:
        assert read(path) == expected(PETS)
    finally:
        os._exit(0)


def test_threads_write_one_copy(pets):
    found = []
    threads = [threading.Thread(target=lambda: found.append(read(pets))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected(PETS)] * 3 and len(list((default_cache_dir() / "own_data").iterdir())) == 1


def test_too_little_space_is_an_error_before_anything_is_written(pets, monkeypatch):
    usage = shutil.disk_usage(pets)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        UserError, match=r"pets.parquet: its images are written to .*, which needs about .* GB are free"
    ):
        embedded_shards(pets)
    assert not list(default_cache_dir().rglob("*.tar"))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"pets.parquet: its images do not fit on the disk of .*MMF_CACHE_DIR"),
        (errno.EDQUOT, r"do not fit on the disk"),
        (errno.EROFS, r"cannot be written to .* \(Read-only file system\).*MMF_CACHE_DIR"),
    ],
)
def test_a_cache_that_cannot_be_written_to_is_an_error(number, message, pets, monkeypatch):
    def fail(writer, key, fields):
        raise OSError(number, os.strerror(number), str(writer.path))

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "write", fail)
        with pytest.raises(UserError, match=message):
            embedded_shards(pets)
    assert read(pets) == expected(PETS)  # the next run finishes
