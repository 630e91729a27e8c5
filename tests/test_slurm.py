"""The batch file of training, with stand-ins for Slurm's commands and mmf_run."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "projects/flava/slurm/train.sbatch"
STAND_INS = {
    "srun": 'shift\nSLURM_PROCID=3 SLURM_LOCALID=1 "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@"; fi',
    "mmf_run": 'echo "$MASTER_ADDR $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE" "$@"\nexit $CODE',
}


@pytest.mark.parametrize("code", [0, 1, 69, 75])
def test_job_is_queued_again_after_a_signal_and_after_the_death_of_a_process(tmp_path, code):
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"}
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code)}
    command = ["bash", SCRIPT, "config=my_run.yaml", "training.run name=a b"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    expected = ["node1 3/4 1/2 config=my_run.yaml training.run name=a b checkpoint.resume=true"]
    assert done.stdout.splitlines() == expected + ["requeue 7"] * (code in (69, 75))
