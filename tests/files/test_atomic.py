"""Atomic writes: content, errors, leftovers of killed processes, concurrent writers."""

import errno
import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmf_flava.files import atomic


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path, text: str) -> None:
    with atomic.replace_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text(text)


def write_and_wait(path: Path, write: str) -> None:
    replace = atomic.replace_file if write == "file" else atomic.replace_folder
    with replace(path):
        (path.parent / "started").touch()
        time.sleep(60)


def fail(error: BaseException) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_files_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old\n")
    atomic.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    atomic.write_json(path, {"a": [1]})
    assert path.read_text() == '{\n  "a": [\n    1\n  ]\n}\n'
    assert listing(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "file", "")
        write_folder(tmp_path / "folder", "")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_folders_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    write_folder(path, "old")
    (path / "another").touch()
    write_folder(path, "new")
    assert (path / "inner" / "file").read_text() == "new"
    assert listing(path) == ["inner"]
    assert listing(tmp_path) == ["folder"]


def test_other_files_of_a_folder_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for text in ("old", "new"):
        with atomic.replace_folder(path, keep=True) as temporary:
            (temporary / "file").write_text(text)
        (path / f"another_{text}").touch()
    assert (path / "file").read_text() == "new"
    assert listing(path) == ["another_new", "another_old", "file"]
    assert listing(tmp_path) == ["folder"]


def test_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit((tmp_path / "pipe").read_text)
        atomic.write_text(tmp_path / "pipe", "text")
        assert content.result() == "text"
    assert listing(tmp_path) == ["pipe"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), ValueError("wrong")])
def test_nothing_changes_after_an_exception(tmp_path: Path, error: BaseException) -> None:
    atomic.write_text(tmp_path / "file", "old")
    write_folder(tmp_path / "folder", "old")
    for replace, name in ((atomic.replace_file, "file"), (atomic.replace_folder, "folder")):
        with pytest.raises(type(error)), replace(tmp_path / name) as temporary:
            if temporary.is_dir():
                (temporary / "part").write_text("new")
            raise error
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "inner" / "file").read_text() == "old"
    assert listing(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", ["missing/file", "folder/file"])
def test_errors_name_the_file_and_not_the_temporary_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder" / "file" / "inner").mkdir(parents=True)
    with pytest.raises(OSError) as raised:  # the parent folder is missing, or a folder with content is in the place
        atomic.write_text(tmp_path / name, "")
    assert raised.value.filename == str(tmp_path / name)
    with pytest.raises(FileNotFoundError) as raised, atomic.replace_folder(tmp_path / "new") as temporary:
        (temporary / "a" / "b").write_text("")
    assert raised.value.filename == str(tmp_path / "new" / "a" / "b")


def test_the_old_folder_is_restored_if_the_new_one_cannot_get_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "folder", "old")
    replace = os.replace

    def replace_once(source: Path, target: Path) -> None:
        if target == tmp_path / "folder" and source.name.endswith(".0.partial"):
            raise OSError(errno.EIO, "error", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(OSError):
        write_folder(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "old"
    assert listing(tmp_path) == ["folder"]


@pytest.mark.parametrize("write", ["file", "folder"])
def test_the_next_write_deletes_the_leftover_of_a_killed_process(tmp_path: Path, write: str) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=write_and_wait, args=(path, write))
        process.start()
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        # a concurrent write leaves the other process's files alone
        (atomic.write_text if write == "file" else write_folder)(path, "new")
        assert listing(tmp_path) == [".out.0.partial", "out", "started"]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        (tmp_path / "started").unlink()
        assert listing(tmp_path) == [".out.0.partial", "out"]
    (atomic.write_text if write == "file" else write_folder)(path, "newer")
    assert listing(tmp_path) == ["out"]


def test_without_locks_only_old_leftovers_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fail(OSError(errno.ENOLCK, "no locks")))
    leftover = tmp_path / ".out.0.partial"
    leftover.touch()
    atomic.write_text(tmp_path / "out", "new")
    assert listing(tmp_path) == [".out.0.partial", "out"]
    yesterday = time.time() - 90_000
    os.utime(leftover, (yesterday, yesterday))
    atomic.write_text(tmp_path / "out", "newer")
    assert listing(tmp_path) == ["out"]


def test_links_and_files_of_other_users_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "important").write_text("important")
    (tmp_path / ".out.0.partial").symlink_to(tmp_path / "important")
    atomic.write_text(tmp_path / "out", "new")
    assert (tmp_path / "important").read_text() == "important"
    assert (tmp_path / "out").read_text() == "new"


def test_threads_that_write_the_same_file(tmp_path: Path) -> None:
    texts = [str(number) * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: [atomic.write_text(tmp_path / "out", text) for _ in range(20)], texts))
    assert (tmp_path / "out").read_text() in texts
    assert listing(tmp_path) == ["out"]


def test_long_names(tmp_path: Path) -> None:
    names = ["é" * 127, "a" * 255, "a" * 254]
    for name in names:
        atomic.write_text(tmp_path / name, name)
    assert [(tmp_path / name).read_text() for name in names] == names
    assert len(listing(tmp_path)) == 3


def test_file_and_folder_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    atomic.write_text(tmp_path / "out", "")
    assert flushed == [str(tmp_path / ".out.0.partial"), str(tmp_path)]
    flushed.clear()
    write_folder(tmp_path / "folder", "")
    partial = tmp_path / ".folder.0.partial"
    assert sorted(flushed) == sorted(map(str, (partial, partial / "inner", partial / "inner" / "file", tmp_path)))
    assert flushed[-1] == str(tmp_path)


def test_a_file_system_that_cannot_flush_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_folder(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "new"
