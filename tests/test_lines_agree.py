"""The same recipe and seed on both of MMF's lines."""

import json
import os
import sysconfig
from pathlib import Path

import pytest

from tests.lines import needs_main

ROOT = Path(__file__).parents[1]
RC10 = Path(sysconfig.get_paths()["purelib"], "mmf", "version.py")


def without_checkout() -> str:
    """PYTHONPATH without a checkout of MMF: what is left is the MMF that is installed."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(place for place in places if place and not Path(place, "mmf").is_dir())])


@needs_main
@pytest.mark.skipif(not RC10.is_file() or "1.0.0rc10" not in RC10.read_text(), reason="needs 1.0.0rc10 installed too")
def test_the_demo_has_the_same_losses(mmf, tmp_path):
    options = ["training.max_updates=30", "training.log_interval=1", "evaluation.examples=null"]
    found = {}
    for line, environment in {"main": {}, "rc10": {"PYTHONPATH": without_checkout()}}.items():
        done = mmf("mmf_run", *options, f"env.save_dir={tmp_path / line}", **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        # a logger of the main branch alone
        assert ("mmf.flava: Training" in done.stdout) == (line == "main")
        rows = [json.loads(row) for row in (tmp_path / line / "metrics.jsonl").read_text().splitlines()]
        found[line] = [row["losses"] for row in rows]
    assert len(found["main"]) == 31  # an evaluation too
    assert found["main"] == [pytest.approx(losses, abs=1e-5) for losses in found["rc10"]]
