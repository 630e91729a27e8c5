"""Run folders that hold nothing but ``evaluation.json``."""

import json

import pytest


@pytest.fixture
def run(tmp_path):
    """``run("mrpc", metrics={...})`` makes a run folder of that task and returns it; ``name`` is the folder's."""

    def run(task, name=None, **evaluation):
        folder = tmp_path / (name or task)
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps({"task": task, "split": "val", **evaluation}))
        return folder

    return run
