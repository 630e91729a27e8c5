"""A run that is asked to stop saves, exits with its code, and goes on as if nothing had happened."""

import os
import signal
import subprocess
import time

from safetensors.torch import load_file

from mmf_flava.training.signals import STOPPED
from tests.conftest import DEMO, SCRIPTS, SHORT

OPTIONS = ["training.max_updates=40", "training.log_interval=1", "training.evaluation_interval=40"]
OPTIONS += ["training.checkpoint_interval=40", "evaluation.examples=null"]


def test_stopped_by_sigterm_and_resumed_equals_uninterrupted(mmf, tmp_path, cache):
    quiet = mmf("mmf_run", *OPTIONS, f"env.save_dir={tmp_path / 'quiet'}")
    assert quiet.returncode == 0, quiet.stderr[-3000:]
    stopped = subprocess.Popen(
        [SCRIPTS / "mmf_run", f"config={DEMO}", *SHORT, *OPTIONS, f"env.save_dir={tmp_path / 'run'}"],
        env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.jsonl").is_file() and stopped.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == STOPPED, output[-3000:]
    assert "Stopped by SIGTERM after update " in output and "checkpoint.resume=true goes on there" in output
    (saved,) = (tmp_path / "run" / "checkpoints").glob("update_*")
    assert saved.name < "update_00000040"

    resumed = mmf("mmf_run", *OPTIONS, "checkpoint.resume=true")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    for file in ("model.safetensors", "optimizer.safetensors"):
        whole, parts = (
            load_file(tmp_path / name / "checkpoints" / "update_00000040" / file) for name in ("quiet", "run")
        )
        assert whole.keys() == parts.keys()
        assert [key for key in whole if not whole[key].equal(parts[key])] == []
