"""Lives of one run: the real command on a tiny model, started again and again in one folder; and what they left."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.conftest import DEMO, SCRIPTS

WATCHED = Path(__file__).with_name("watched_run.py")
ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
# an update of the tiny model takes some ten milliseconds
TINY = [
    f"model_config.flava.{encoder}.{size}"
    for encoder in ENCODERS
    for size in ("num_layers=1", "hidden_size=32", "mlp_size=64", "num_heads=2")
]
DROPOUT = [f"model_config.flava.{encoder}.dropout=0.1" for encoder in ENCODERS]
OPTIONS = [
    *TINY,
    "model_config.flava.projection_size=16",
    "training.batch_size=8",
    "training.num_workers=1",
    "training.num_threads=1",
    "training.tensorboard=false",
    "training.log_interval=1",
    "evaluation.zero_shot=null",
    "evaluation.retrieval=null",
    "evaluation.examples=null",
    "checkpoint.resume=true",
]


class Run:
    """A run in ``root/name``; every ``start`` is a life of it.

    Args:
        options: of the recipe, beside ``OPTIONS``.
    """

    def __init__(self, root: Path, name: str, *options: str) -> None:
        self.root, self.folder, self.records = root, root / name, root / f"{name}.records"
        self.log = root / f"{name}.log"
        self.options = [f"config={DEMO}", *OPTIONS, *options, f"env.save_dir={self.folder}"]
        self.records.mkdir(parents=True)

    def start(self, *options: str, processes: int = 1, watch: dict[str, Any] | None = None) -> subprocess.Popen:
        """Starts a life by so many processes; ``watch`` is what ``watched_run`` is told."""
        script = str(SCRIPTS / "mmf_run") if watch is None else str(WATCHED)
        command = [str(SCRIPTS / "python"), script]
        if processes > 1:
            command = [str(SCRIPTS / "torchrun"), "--standalone", f"--nproc_per_node={processes}", script]
            options = (*options, "training.sharding=ddp")
        environment = {**os.environ, "MMF_CACHE_DIR": str(self.root.parent / "cache"), "OMP_NUM_THREADS": "1"}
        if watch is not None:
            environment["WATCH"] = json.dumps({"records": str(self.records), **watch})
        with open(self.log, "w") as log:
            return subprocess.Popen(
                [*command, *self.options, *options], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def finish(self, *options: str, processes: int = 1, watch: dict[str, Any] | None = None) -> None:
        """A life that nothing befalls, to the end."""
        if self.start(*options, processes=processes, watch=watch).wait() != 0:
            raise SystemExit(f"the run in {self.folder} failed:\n{self.log.read_text()[-3000:]}")

    def final(self) -> Path:
        """The last checkpoint."""
        return max((self.folder / "checkpoints").glob("update_*"))

    def state(self) -> dict[str, Any]:
        """``state.json`` of the last checkpoint but for its times: counters, schedule, generators of all processes."""
        state = json.loads((self.final() / "state.json").read_text())
        del state["seconds"]
        return state

    def losses(self) -> dict[int, dict[str, float]]:
        """Update -> losses, as the last life that did it found them."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return {line["update"]: line["losses"] for line in lines if line["split"] == "train"}

    def samples(self) -> list[tuple[int, list[str]]]:
        """Update and names of its whole batch, for every update of every watched life."""
        parts = [
            [json.loads(line) for line in file.read_text().splitlines()]
            for file in sorted(self.records.glob("*.jsonl"))
        ]
        lives: dict[tuple[int, int], dict[int, list[str]]] = {}
        for line in (line for part in parts for line in part):
            lives.setdefault((line["life"], line["update"]), {})[line["rank"]] = line["samples"]
        # rank r of n has every n-th sample, from the r-th on
        return [
            (update, [name for row in zip(*(shares[rank] for rank in sorted(shares)), strict=True) for name in row])
            for (_, update), shares in sorted(lives.items())
        ]


def difference(quiet: Run, other: Run) -> int:
    """How many tensors, of weights and optimizer, of two final checkpoints differ in any bit."""
    count = 0
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(run.final() / file) for run in (quiet, other))
        count += len(ours.keys() ^ theirs.keys())
        count += sum(not ours[key].equal(theirs[key]) for key in ours.keys() & theirs.keys())
    return count
