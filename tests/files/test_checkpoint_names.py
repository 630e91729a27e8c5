"""Pointer files, and reads of checkpoints that a run removes or replaces meanwhile."""

import shutil

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import (
    ATTEMPTS,
    find_checkpoints,
    new_checkpoint,
    pointer_text,
    read_found,
    read_pointer,
)
from mmf_flava.files.checksums import write_checksums


def make(root, update, text="text"):
    folder = root / f"update_{update}"
    folder.mkdir()
    (folder / "file").write_text(text)
    write_checksums(folder)
    return folder


def test_a_removed_checkpoint_is_read_again_under_its_new_name(tmp_path):
    folders, tried = [make(tmp_path, update) for update in (1, 2, 3)], []

    def find():
        return next(folder for folder in folders if folder.exists())

    def read(folder):
        tried.append(folder.name)
        if folder != folders[-1]:
            shutil.rmtree(folder)
        # the first read fails, and the second one misses a file that is optional
        return (folder / "file").read_text() if folder == folders[0] else (folder / "file").is_file()

    assert read_found(find, read) is True
    assert tried == ["update_1", "update_2", "update_3"]


def test_a_replaced_checkpoint_is_read_again(tmp_path):
    make(tmp_path, 1, "old")

    def read(folder):
        text = (folder / "file").read_text()
        if text == "old":
            folder.rename(tmp_path / "update_1.replaced")
            make(tmp_path, 1, "new")
        return text

    assert read_found(lambda: tmp_path / "update_1", read) == "new"


def test_a_checkpoint_that_is_missing_while_it_is_replaced_is_read_again(tmp_path):
    folder, finds = make(tmp_path, 1, "old"), []

    def find():
        finds.append(folder)
        if len(finds) == 2:
            folder.rename(tmp_path / "update_1.replaced")
        if len(finds) == 3:
            make(tmp_path, 1, "new")
        return folder

    def read(found):
        if len(finds) == 1:
            (found / "another").touch()  # another identity
        return (found / "file").read_text()

    assert read_found(find, read) == "new"


@pytest.mark.parametrize("name", ["update_1", "weights", "update_2"])
def test_errors_of_unchanged_files_are_raised_at_once(tmp_path, name):
    make(tmp_path, 1)
    (tmp_path / "weights").mkdir()
    reads = []

    def read(folder):
        reads.append(folder)
        raise ValueError(folder.name)

    with pytest.raises(ValueError, match=name):
        read_found(lambda: tmp_path / name, read)
    assert len(reads) == 1 + (name == "update_2")  # a missing checkpoint is looked up twice


def test_attempts_are_limited(tmp_path):
    updates = iter(range(1000))

    def read(folder):
        shutil.rmtree(folder)
        (folder / "file").read_text()

    with pytest.raises(UserError, match=r"update_99 and later checkpoints were removed .* Increase max_to_keep"):
        read_found(lambda: make(tmp_path, next(updates)), read)
    assert next(updates) == ATTEMPTS


def test_pointer_names_one_checkpoint_with_its_checksum(tmp_path):
    old, pointer = make(tmp_path, 1, "old"), tmp_path / "latest"
    pointer.write_text(pointer_text(old))
    new = new_checkpoint(tmp_path, 1)
    assert new.name == "update_00000001.1"
    shutil.copytree(old, new)
    assert read_pointer(pointer) == old
    shutil.rmtree(old)
    assert read_pointer(pointer) is None
    (tmp_path / "update_1").mkdir()
    assert read_pointer(pointer) is None
    for corrupt in (pointer_text(new)[:-1], pointer_text(new).replace("1", "2", 1), "../update_1", ""):
        pointer.write_text(corrupt)
        assert read_pointer(pointer) is None


def test_newest_checkpoints_are_first_and_those_of_later_updates_are_last(tmp_path):
    for name in ("update_8", "update_9", "update_9.1", "update_9.10", "update_9.2", "update_10", "update_9.removed"):
        (tmp_path / name).mkdir()

    def names(latest=None, update=None):
        found = find_checkpoints(tmp_path, latest and tmp_path / latest, update)
        return [path.name.removeprefix("update_") for path in found]

    assert names() == ["10", "9.10", "9.2", "9.1", "9", "8"]
    assert names("update_9.1") == ["9.1", "9.10", "9.2", "9", "8", "10"]
    assert names("update_10", 8) == ["8", "10", "9.10", "9.2", "9.1", "9"]
    assert new_checkpoint(tmp_path, 9).name == "update_00000009.11"
    assert new_checkpoint(tmp_path, 7).name == "update_00000007"
