"""Runs of ``mmf_run`` on a tiny model that are started several times in one folder."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import DEMO, SCRIPTS

INSTRUMENTED = Path(__file__).with_name("instrumented_run.py")
ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
# an update of this model takes about ten milliseconds
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
RECIPE = (f"config={DEMO}", *OPTIONS)
FILES = ("model.safetensors", "optimizer.safetensors")
# fields of a record of metrics.jsonl that depend on the speed of the machine
RATES = ("time", "samples_per_second", "tokens_per_second", "flops_per_second", "data_wait", "first_batch_seconds")


TIMEOUT = 900  # seconds from the start of an attempt to its end


def training_pids(launcher: int, processes: int) -> list[int]:
    """Return the IDs of the training processes."""
    if processes == 1:
        return [launcher]
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def kill_all(launcher: int, processes: int) -> None:
    """Kill the processes of an attempt."""
    for pid in {launcher, *training_pids(launcher, processes)}:
        os.kill(pid, signal.SIGKILL)


class Run:
    """A run in the folder ``root/name``; every ``start`` is one attempt.

    Args:
        options: overrides in addition to ``recipe``.
        recipe: the options that all runs of a test share.
    """

    def __init__(self, root: Path, name: str, *options: str, recipe: Sequence[str] = RECIPE) -> None:
        self.root, self.folder, self.records = root, root / name, root / f"{name}.records"
        self.log = root / f"{name}.log"
        self.options = [*recipe, *options, f"env.save_dir={self.folder}"]
        self.records.mkdir(parents=True)

    def start(
        self, *options: str, processes: int = 1, instrument: dict[str, Any] | None = None, stdout: int | None = None
    ) -> subprocess.Popen:
        """Start an attempt; ``instrument`` has the settings of ``instrumented_run``, None runs ``mmf_run`` itself.

        ``stdout`` is a file descriptor; None writes stdout and stderr to the log.
        """
        script = str(SCRIPTS / "mmf_run") if instrument is None else str(INSTRUMENTED)
        command = [str(SCRIPTS / "python"), script]
        if processes > 1:
            command = [str(SCRIPTS / "torchrun"), "--standalone", f"--nproc_per_node={processes}", script]
            options = (*options, "training.sharding=ddp")
        environment = {**os.environ, "MMF_CACHE_DIR": str(self.root.parent / "cache"), "OMP_NUM_THREADS": "1"}
        if instrument is not None:
            environment["INSTRUMENT"] = json.dumps({"records": str(self.records), **instrument})
        with open(self.log, "w") as log:
            return subprocess.Popen(
                [*command, *self.options, *options], env=environment, stdout=stdout or log, stderr=log
            )

    def finish(self, *options: str, processes: int = 1, instrument: dict[str, Any] | None = None) -> None:
        """Run an attempt to the end. One that hangs is killed after ``TIMEOUT``."""
        attempt = self.start(*options, processes=processes, instrument=instrument)
        try:
            code = attempt.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            kill_all(attempt.pid, processes)
            code = "it hung"
        if code != 0:
            raise SystemExit(f"The run in {self.folder} failed ({code}):\n{self.log.read_text()[-3000:]}")

    def last_checkpoint(self) -> Path:
        """Return the last checkpoint."""
        return max((self.folder / "checkpoints").glob("update_*"))

    def best_checkpoint(self) -> Path:
        """Return the checkpoint that ``checkpoints/best`` names."""
        pointer = self.folder / "checkpoints" / "best"
        return pointer.with_name(pointer.read_text().partition(" ")[0])

    def state(self) -> dict[str, Any]:
        """Return ``state.json`` of the last checkpoint without its times and recipe, which names the folder."""
        state = json.loads((self.last_checkpoint() / "state.json").read_text())
        del state["seconds"], state["identity"]["recipe"]
        return state

    def metrics(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return (split, update) -> record without ``RATES``; of repeated updates, that of the last attempt."""
        records = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return {
            (record["split"], record["update"]): {key: record[key] for key in record if key not in RATES}
            for record in records
        }

    def losses(self) -> dict[int, dict[str, float]]:
        """Return update -> losses; of repeated updates, those of the last attempt."""
        return {update: record["losses"] for (split, update), record in self.metrics().items() if split == "train"}

    def evaluation(self) -> dict[str, Any]:
        """Return the final metrics."""
        return json.loads((self.folder / "evaluation.json").read_text())

    def samples(self) -> list[tuple[int, list[str]]]:
        """Return the update and the sample IDs of its global batch for every update of every instrumented attempt."""
        files = sorted(self.records.glob("*.jsonl"))
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        batches: dict[tuple[int, int], dict[int, list[str]]] = {}
        for record in records:
            batches.setdefault((record["attempt"], record["update"]), {})[record["rank"]] = record["samples"]
        # a global batch is divided into consecutive parts, in the order of the ranks
        return [
            (update, [name for r in sorted(of_rank) for name in of_rank[r]])
            for (_, update), of_rank in sorted(batches.items())
        ]


def count_differences(a: Run, b: Run) -> int:
    """Return how many tensors of weights and optimizer are not bit-identical in the last checkpoints of two runs."""
    checkpoints = [run.last_checkpoint() for run in (a, b)]
    return sum(_differing_tensors(*(path / file for path in checkpoints)) for file in FILES)


def _differing_tensors(a: Path, b: Path) -> int:
    x, y = load_file(a), load_file(b)
    return len(x.keys() ^ y.keys()) + sum(not x[key].equal(y[key]) for key in x.keys() & y.keys())


def _header(file: Path) -> dict[str, str]:
    # the bytes of equal files differ: safetensors writes the entries of the header in random order
    with safe_open(file, "pt") as content:
        return content.metadata() or {}


def find_differences(a: Run, b: Run) -> list[str]:
    """Return what is not equal to the last bit in two runs, apart from weights and optimizer of the last checkpoint."""
    state, metrics = ([getattr(run, name)() for run in (a, b)] for name in ("state", "metrics"))
    names = [
        f"state.json: {key}" for key in state[0].keys() | state[1].keys() if state[0].get(key) != state[1].get(key)
    ]
    names += [
        f"metrics.jsonl: {split} {update}"
        for split, update in metrics[0].keys() | metrics[1].keys()
        if metrics[0].get((split, update)) != metrics[1].get((split, update))
    ]
    if a.evaluation() != b.evaluation():
        names.append("evaluation.json")
    x, y = (run.best_checkpoint() for run in (a, b))
    # the name has the update, and may have the number of a repetition
    if x.name.partition(".")[0] != y.name.partition(".")[0]:
        names.append("update of the best checkpoint")
    names += [
        f"best checkpoint: {file}"
        for file in FILES
        if _differing_tensors(x / file, y / file) or _header(x / file) != _header(y / file)
    ]
    return sorted(names)
