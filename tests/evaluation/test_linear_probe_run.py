"""Runs the demo's linear probe with ``mmf_run`` on a checkpoint after four updates."""

import json

import pytest

from mmf_flava.evaluation.table.paper import table_rows
from mmf_flava.evaluation.table.results import RunResult

RECIPE = "projects/flava/configs/linear_probe/demo_digits.yaml"


def test_results_are_equal_for_one_and_two_processes(mmf, tmp_path):
    trained = mmf("mmf_run", "evaluation.examples=null", "evaluation.retrieval=null", "evaluation.zero_shot=null")
    assert trained.returncode == 0, trained.stderr[-3000:]
    # without the cache, because otherwise the second run would read the embeddings of the first
    overrides = ["evaluation.linear_probe.max_iterations=20", "evaluation.features_dir=null"]
    found = []
    for processes in (1, 2):
        folder = tmp_path / f"probe_{processes}"
        options = [f"checkpoint.resume_file={tmp_path / 'run'}", f"env.save_dir={folder}", *overrides]
        result = mmf("mmf_run", *options, config=RECIPE, processes=processes)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "Linear probe accuracy 0." in result.stdout and "fitted to 1437 images" in result.stdout
        found.append(json.loads((folder / "evaluation.json").read_text()))
    assert found[0] == found[1]
    assert (found[0]["task"], found[0]["update"], found[0]["losses"]) == ("demo_digits", 4, {})
    summary = found[0]["linear_probe"]
    assert summary["samples"] == {"train": 1300, "val": 137, "fitted": 1437, "test": 360}
    assert 0.4 < summary["accuracy"] < 1  # chance is 0.1
    mnist = next(row for row in table_rows() if row.name == "MNIST")
    assert RunResult(folder, "mnist", found[0]).value(mnist) == pytest.approx(100 * summary["accuracy"])
