"""An output folder has the data of one input; lost shards and files of others are noticed."""

import json
import os

import pytest

from mmf_flava.data.prepare.executors import Executor
from mmf_flava.errors import UserError

from .process_kills import read_files
from .test_executors import make_folder, preparation


def test_other_input_is_an_error_at_once(tmp_path):
    """Also if no shard is written: another process may be preparing them."""
    preparation(tmp_path).output_folder(make_folder(tmp_path / "out")).begin()
    with pytest.raises(UserError, match="a different input"):
        preparation(tmp_path, shard=5).run(tmp_path / "out", False)
    assert (tmp_path / "out/.work/input.json").is_file()


def test_one_of_two_processes_with_different_options_prepares(tmp_path):
    out = make_folder(tmp_path / "out")
    first, other = (preparation(tmp_path, shard=shard).output_folder(out) for shard in (4, 5))
    assert first.begin()
    with pytest.raises(UserError, match="a different input"):
        other.begin()
    assert not first.begin(), "a second process with the same options shares the work"


def test_folder_with_other_shards_is_refused(tmp_path):
    (make_folder(tmp_path / "out") / "00000.tar").write_bytes(b"img2dataset's")
    with pytest.raises(UserError, match="tar files that this command has not written"):
        preparation(tmp_path).run(tmp_path / "out", False)
    assert os.listdir(tmp_path / "out") == ["00000.tar"]


def test_lost_shards_are_written_again_or_named(tmp_path):
    out, expected = tmp_path / "out", tmp_path / "expected"
    preparation(tmp_path).run(expected, False)
    (tmp_path / "9").write_text("9")
    with pytest.raises(UserError, match="killed"):
        preparation(tmp_path).run(out, False, Executor("local", 2))
    (tmp_path / "9").unlink()
    written = sorted(out.glob("*.tar"))
    written[0].unlink()
    written[-1].write_bytes(b"")
    damaged = next((out / ".work").glob("[0-9]*.json"))
    damaged.write_text(
        json.dumps({key: value for key, value in json.loads(damaged.read_text()).items() if key != "counts"})
    )
    preparation(tmp_path).run(out, False)
    assert read_files(out) == read_files(expected)
    written[0].unlink()
    with pytest.raises(UserError, match=f"is finished, but shards are missing or empty: {written[0].name}"):
        preparation(tmp_path).run(out, False)


def test_other_input_is_an_error_once_a_shard_is_written(tmp_path):
    (tmp_path / "9").write_text("9")
    with pytest.raises(UserError, match="killed"):
        preparation(tmp_path).run(tmp_path / "out", False, Executor("local", 2))
    with pytest.raises(UserError, match="a different input"):
        preparation(tmp_path, shard=5).run(tmp_path / "out", False)
    (tmp_path / "out/.work/progress.json").touch()
    with pytest.raises(UserError, match="an earlier version of mmf_flava has not finished"):
        preparation(tmp_path).run(tmp_path / "out", False)
