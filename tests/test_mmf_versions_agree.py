"""The same recipe and seed with both versions of MMF."""

import json
import os
import sysconfig
from pathlib import Path

import pytest

from tests.mmf_versions import needs_main

ROOT = Path(__file__).parents[1]
RC10 = Path(sysconfig.get_paths()["purelib"], "mmf", "version.py")


def without_checkout() -> str:
    """Return PYTHONPATH without a checkout of MMF, so that the installed MMF is imported."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(folder for folder in folders if folder and not Path(folder, "mmf").is_dir())])


@needs_main
@pytest.mark.skipif(
    not RC10.is_file() or "1.0.0rc10" not in RC10.read_text(), reason="needs MMF 1.0.0rc10 installed as well"
)
def test_demo_has_the_same_losses(mmf, tmp_path):
    options = ["training.max_updates=30", "training.log_interval=1", "evaluation.examples=null"]
    losses = {}
    for version, environment in {"main": {}, "rc10": {"PYTHONPATH": without_checkout()}}.items():
        done = mmf("mmf_run", *options, f"env.save_dir={tmp_path / version}", **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        # only MMF's main branch has this logger
        assert ("mmf.flava: Training" in done.stdout) == (version == "main")
        records = [json.loads(record) for record in (tmp_path / version / "metrics.jsonl").read_text().splitlines()]
        losses[version] = [record["losses"] for record in records]
    assert len(losses["main"]) == 31  # with one evaluation
    assert losses["main"] == [pytest.approx(expected, abs=1e-5) for expected in losses["rc10"]]
