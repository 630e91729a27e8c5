"""Finetuning on several processes: ``python -m tests.faults.finetuning_processes``.

Small finetunings of ``hateful_memes``: in fp32 without dropout, 20 updates with ddp and fsdp on two processes must have
the losses, metrics and weights of one process. fp16 and bf16 must train with ddp and fsdp. Then ``mmf_run`` and
``mmf_predict`` evaluate one model on 1, 2 and 3 processes: losses, metrics and predictions must be equal to the last
bit, with each sample once, in the order of the file.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mmf_flava.command import ArgumentParser, command, integer
from tests.conftest import SCRIPTS
from tests.faults.finetuning_recipes import FINETUNINGS, SIZES
from tests.faults.forked_runs import ForkedRun

TOLERANCE = 1e-6
UPDATES = 20
SHARDINGS, PRECISIONS = ("ddp", "fsdp"), ("fp32", "fp16", "bf16")


def largest_difference(a: Any, b: Any) -> float:
    """Return the largest absolute difference of the numbers in two nested dictionaries; inf if their keys differ."""
    if isinstance(a, dict):
        keys = a.keys() | b.keys() if isinstance(b, dict) else {None}
        return max((largest_difference(a.get(key), b.get(key)) for key in keys), default=0.0)
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return abs(a - b) if numbers else 0.0 if a == b else float("inf")


def largest_weight_difference(a: ForkedRun, b: ForkedRun) -> tuple[float, str]:
    """Return the largest absolute difference of two weights after the last update, and its name.

    The key bias is left out: it adds a constant to all attention scores of a query, so its gradient is rounding noise.
    """
    x, y = (load_file(run.last_checkpoint() / "model.safetensors") for run in (a, b))
    assert x.keys() == y.keys()
    return max(((x[name] - y[name]).abs().max().item(), name) for name in x if not name.endswith("qkv.bias"))


def train(root: Path, recipe: Sequence[str], sharding: str, precision: str, processes: int) -> ForkedRun:
    """Train ``UPDATES`` updates."""
    options = (f"training.sharding={sharding}", f"training.precision={precision}", f"training.max_updates={UPDATES}")
    run = ForkedRun(root, f"{sharding}_{precision}", *options, "training.evaluation_interval=10", recipe=recipe)
    run.finish(processes=processes)
    return run


def compare_processes(root: Path, recipe: Sequence[str], precisions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Train on two processes with each sharding and precision, and compare fp32 with one process."""
    single = train(root, recipe, "none", "fp32", 1)
    for sharding, precision in itertools.product(SHARDINGS, precisions):
        run = train(root, recipe, sharding, precision, 2)
        losses = [record["cross_entropy"] for record in run.losses().values()]
        result: dict[str, Any] = {"test": f"hateful_memes, {sharding}, {precision}, 2 processes"}
        result |= {"updates": len(losses), "losses": [round(losses[0], 4), round(losses[-1], 4)]}
        passed = len(losses) == UPDATES and losses[-1] < losses[0]
        if precision == "fp32":
            weights, name = largest_weight_difference(single, run)
            found = {
                "metrics.jsonl": max(
                    largest_difference(record, run.metrics()[key]) for key, record in single.metrics().items()
                ),
                "evaluation.json": largest_difference(single.evaluation(), run.evaluation()),
                "weights": weights,
            }
            passed &= max(found.values()) <= TOLERANCE
            result |= {"differences": {key: float(f"{value:.2g}") for key, value in found.items()}, "weight": name}
        yield {**result, "passed": passed}


def run_command(folder: Path, script: str, processes: int, *words: str) -> None:
    """Run ``mmf_run`` or ``mmf_predict``, with torchrun if there are several processes."""
    launcher = [str(SCRIPTS / "torchrun"), "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = {**os.environ, "MMF_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(SCRIPTS / script), *words], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} on {processes} processes failed:\n{done.stderr[-3000:]}")


def evaluate(trained: ForkedRun, processes: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the metrics and losses of the ``val`` split, and the predictions of the ``test`` split."""
    folder = trained.root / f"reports_{processes}"
    sharding = "ddp" if processes > 1 else "none"
    words = [*trained.options, f"training.sharding={sharding}", "evaluation.batch_size=2", f"env.report_dir={folder}"]
    run_command(trained.root, "mmf_run", processes, *words, "run_type=val")
    run_command(trained.root, "mmf_predict", processes, *words, "run_type=test")
    (file,) = folder.glob("**/hateful_memes*.csv")
    return trained.evaluation(), list(csv.DictReader(file.open()))


def compare_evaluations(trained: ForkedRun, most: int = 3) -> dict[str, Any]:
    """Compare the results of 1 to ``most`` processes."""
    results = [evaluate(trained, processes) for processes in range(1, most + 1)]
    metrics, rows = results[0]
    first = 1001 + SIZES["train"] + SIZES["val"]  # ID of the first meme of the split
    in_order = [int(row["id"]) for row in rows] == list(range(first, first + SIZES["test"]))
    equal = [result == results[0] for result in results]
    values = {**metrics["losses"], **metrics["metrics"]}
    return {"test": "mmf_run and mmf_predict on 1 to 3 processes", "equal": equal, "memes in order": in_order,
            "values": values, "passed": all(equal) and in_order and len(values) == 3}  # fmt: skip


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="*", default=PRECISIONS)
    parser.add_argument("--processes", type=integer(1), default=3, help="most processes of an evaluation")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "runs")
        recipe = FINETUNINGS["hateful_memes"].recipe(Path(folder, "data"), dropout=0.0)
        for result in compare_processes(root, recipe, options.precisions):
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
        trained = ForkedRun(root, "evaluated", f"training.max_updates={UPDATES}", recipe=recipe)
        trained.finish()
        result = compare_evaluations(trained, options.processes)
        print(json.dumps(result), flush=True)
        failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
