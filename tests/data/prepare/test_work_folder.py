"""A work folder is deleted by whoever ends first, which is no error for the others, or by a failed command."""

import json
import shutil

import pytest

from mmf_flava.data.prepare.empty_result import NoRecordError
from mmf_flava.data.prepare.executors import WorkersKilledError
from mmf_flava.data.prepare.work_folder import WorkFolder
from mmf_flava.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return WorkFolder(tmp_path, tmp_path / "work", tmp_path / "end", {"src": "a"}, 2, {})


def test_folder_that_is_deleted_after_the_end_is_no_error(folder):
    def run(number, is_done):
        folder.end.touch()
        folder.delete()
        return {"last": False}

    with folder.open():
        assert folder.walk(folder.tasks, run) == [] == folder.results()
    with folder.open(), folder.deletion():
        raise FileNotFoundError
    assert not folder.work.exists()


def test_folder_that_is_deleted_before_the_end_is_an_error(folder):
    def run(number, is_done):
        shutil.rmtree(folder.work)
        return {"last": False}

    with pytest.raises(UserError, match=r"work was deleted during the preparation"), folder.open():
        folder.walk(folder.tasks, run)
    folder.begin()
    with pytest.raises(FileNotFoundError), folder.deletion():
        raise FileNotFoundError("another file")


@pytest.mark.parametrize(
    ("error", "is_first", "has_result", "is_deleted"),
    [
        (UserError, True, False, True),
        (UserError, False, False, False),
        (NoRecordError, False, False, True),
        (NoRecordError, True, True, False),
        (UserError, True, True, False),
        (WorkersKilledError, True, False, False),
        (KeyboardInterrupt, True, False, False),
    ],
)
def test_failed_command_deletes_what_is_not_worth_keeping(folder, error, is_first, has_result, is_deleted):
    if not is_first:
        folder.begin()
    with pytest.raises(error), folder.open():
        if has_result:
            (folder.work / "00000.json").write_text(json.dumps({"input": folder.tasks.input, "last": False}))
        raise error
    assert folder.work.exists() != is_deleted
