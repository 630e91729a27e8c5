"""The demo's linear probe by the real command, on a checkpoint of four updates."""

import json

import pytest

from mmf_flava.evaluation.table.paper import rows
from mmf_flava.evaluation.table.results import Run

RECIPE = "projects/flava/configs/linear_probe/demo_digits.yaml"


def test_one_process_and_two_have_equal_figures(mmf, tmp_path):
    trained = mmf("mmf_run", "evaluation.examples=null", "evaluation.retrieval=null", "evaluation.zero_shot=null")
    assert trained.returncode == 0, trained.stderr[-3000:]
    # no vectors are kept: the second run would only read those of the first
    few = ["evaluation.linear_probe.max_iterations=20", "evaluation.features_dir=null"]
    found = []
    for processes in (1, 2):
        folder = tmp_path / f"probe_{processes}"
        options = [f"checkpoint.resume_file={tmp_path / 'run'}", f"env.save_dir={folder}", *few]
        result = mmf("mmf_run", *options, config=RECIPE, processes=processes)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "Linear probe accuracy 0." in result.stdout and "learnt from 1437 images" in result.stdout
        found.append(json.loads((folder / "evaluation.json").read_text()))
    assert found[0] == found[1]
    assert (found[0]["task"], found[0]["losses"]) == ("demo_digits", {})
    summary = found[0]["linear_probe"]
    assert summary["samples"] == {"train": 1300, "val": 137, "fitted": 1437, "test": 360}
    assert 0.4 < summary["accuracy"] < 1  # chance is 0.1
    mnist = next(row for row in rows() if row.name == "MNIST")
    assert Run(folder, "mnist", found[0]).figure(mnist) == pytest.approx(100 * summary["accuracy"])
