"""The files of an earlier run in the same folder."""

import os

import pytest

from mmf_flava.compat import mmf_api
from mmf_flava.training.results import Results


@pytest.fixture
def messages(monkeypatch):
    logged: list[str] = []
    monkeypatch.setattr(mmf_api, "log", logged.append)
    return logged


def test_new_folder_says_nothing(tmp_path, messages):
    Results(tmp_path).move_previous_run()
    assert not messages and not (tmp_path / "previous").exists()


def test_one_line_says_where_the_earlier_run_is_and_how_to_continue_it(tmp_path, messages):
    for number in (1, 2):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "latest").write_text("update_1")
        (tmp_path / "metrics.jsonl").touch()
        Results(tmp_path).move_previous_run()
        target = tmp_path / "previous" / str(number)
        assert (target / "checkpoints" / "latest").exists()
        message = messages.pop()
        assert message.startswith("Training starts at update 0.") and f"are now in {target}." in message
        assert f"checkpoint.resume=true and env.save_dir={target}." in message
        assert not messages
    (tmp_path / "metrics.jsonl").touch()
    Results(tmp_path).move_previous_run()
    assert "checkpoint.resume" not in messages.pop(), "no checkpoint to resume from"


def test_a_killed_move_is_completed_by_the_next_start(tmp_path, monkeypatch, messages):
    for name in ("checkpoints", "metrics.jsonl", "summary.json"):
        (tmp_path / name).write_text(name)
    replace, calls = os.replace, []

    def killed(*paths):
        if calls:
            raise KeyboardInterrupt
        calls.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Results(tmp_path).move_previous_run()
    monkeypatch.setattr(os, "replace", replace)
    assert not (tmp_path / "checkpoints").exists(), "a run cannot resume without its metrics"
    Results(tmp_path).move_previous_run()
    moved = sorted(path.name for path in (tmp_path / "previous" / "1").iterdir())
    assert moved == ["checkpoints", "metrics.jsonl", "summary.json"] and len(messages) == 1
