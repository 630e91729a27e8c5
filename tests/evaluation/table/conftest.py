"""Fixture for run folders with an ``evaluation.json`` only."""

import json

import pytest


@pytest.fixture
def make_run(tmp_path):
    """``make_run("mrpc", metrics={...})`` creates a run folder of that task and returns its path."""

    def make_run(task, name=None, **evaluation):
        folder = tmp_path / (name or task)
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps({"task": task, "split": "val", **evaluation}))
        return folder

    return make_run
