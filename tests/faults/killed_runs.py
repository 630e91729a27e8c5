"""Whole runs under fire: ``python -m tests.faults.killed_runs`` kills and stops the real command at random moments.

A short demo with dropout, evaluated and saved every few updates, is run once in quiet. Then it is killed (SIGKILL), or
asked to stop (SIGTERM), again and again, each life going on from the last: its weights and optimizer state must end as
those of the quiet run, to the bit. ``test_stop.py`` beside this file does one stop.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

from mmf_flava.training.signals import STOPPED
from tests.conftest import DEMO, SCRIPTS

OPTIONS = [
    "training.batch_size=16",
    "training.num_workers=1",
    "training.tensorboard=false",
    "training.log_interval=1",
    "training.evaluation_interval=7",
    "training.checkpoint_interval=3",
    "evaluation.retrieval=null",
    "evaluation.examples=null",
    *(
        f"model_config.flava.{encoder}.dropout=0.1"
        for encoder in ("image_encoder", "text_encoder", "multimodal_encoder")
    ),
]


class Runs:
    """Lives of one run in a folder, by ``processes`` processes."""

    def __init__(self, root: Path, name: str, updates: int, processes: int) -> None:
        self.folder, self.processes = root / name, processes
        self.log = root / f"{name}.log"
        options = [f"config={DEMO}", *OPTIONS, f"training.max_updates={updates}", f"env.save_dir={self.folder}"]
        launcher = [str(SCRIPTS / "torchrun"), "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        sharding = ["training.sharding=ddp"] if processes > 1 else []
        self.command = [*launcher, str(SCRIPTS / "mmf_run"), *options, *sharding, "checkpoint.resume=true"]
        self.environment = {**os.environ, "MMF_CACHE_DIR": str(root / "cache"), "OMP_NUM_THREADS": "1"}

    def start(self) -> subprocess.Popen:
        with open(self.log, "w") as log:
            return subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def updates(self) -> int:
        """Lines of training in the metrics so far, updates that were done twice counted twice."""
        metrics = self.folder / "metrics.jsonl"
        return metrics.read_text().count('"split": "train"') if metrics.is_file() else 0

    def workers(self, launcher: int) -> list[int]:
        """The processes that train."""
        if self.processes == 1:
            return [launcher]
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [int(pid) for pid in children]

    def life(self, number: int, moment: random.Random) -> int | None:
        """Starts the run, sends a signal at a random moment of training, and returns its exit code."""
        before, process = self.updates(), self.start()
        while self.updates() <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 2))
        if process.poll() is None:
            os.kill(moment.choice(self.workers(process.pid)), number)
        try:
            return process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            return None

    def finish(self) -> None:
        if self.start().wait() != 0:
            raise SystemExit(f"the run in {self.folder} failed:\n{self.log.read_text()[-2000:]}")


def difference(quiet: Path, other: Path, update: int) -> int:
    """How many tensors of two final checkpoints differ in any bit."""
    count = 0
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(folder / "checkpoints" / f"update_{update:08d}" / file) for folder in (quiet, other))
        count += sum(not ours[key].equal(theirs[key]) for key in ours) + len(ours.keys() ^ theirs.keys())
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200, help="of a run (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs of one run (%(default)s)")
    parser.add_argument("--stops", type=int, default=10, help="SIGTERMs of one run, to one process (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    wishes = parser.parse_args()
    moment, failed = random.Random(wishes.seed), False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        quiet = Runs(root, "quiet", wishes.updates, wishes.processes)
        quiet.finish()
        for name, number, count in (
            ("killed", signal.SIGKILL, wishes.kills),
            ("stopped", signal.SIGTERM, wishes.stops),
        ):
            runs, codes = Runs(root, name, wishes.updates, wishes.processes), []
            while len(codes) < count and 0 not in codes:
                codes.append(runs.life(number, moment))
            runs.finish()
            differing = difference(quiet.folder, runs.folder, wishes.updates)
            hung = codes.count(None)
            expected = {signal.SIGTERM: STOPPED if wishes.processes == 1 else 1}.get(number)
            stopped = sum(code == expected for code in codes) if expected is not None else len(codes)
            late = codes.count(0)
            print(json.dumps({"signal": number.name, "sent": len(codes), "as documented": stopped, "too late": late,
                              "hung": hung, "tensors that differ": differing}))  # fmt: skip
            failed |= bool(differing or hung or stopped + late < len(codes))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
