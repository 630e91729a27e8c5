"""Two processes with unlike recipes: ``python -m tests.faults.unlike_recipes`` starts each pair with torchrun.

As a script of torchrun, this file runs ``mmf_run``; an option such as ``1:training.batch_size=4`` is for rank 1 only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmf_flava.command import ArgumentParser, command, integer

SCRIPTS = Path(sys.executable).parent
TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Pair:
    """Options of rank 0 and of rank 1, the key that differs, and its values on rank 0 and on rank 1."""

    key: str
    first: tuple[str, ...]
    other: tuple[str, ...]
    values: tuple[str, str]


def _pair(key: str, first: str, other: str) -> Pair:
    return Pair(key, (f"{key}={first}",), (f"{key}={other}",), (first, other))


RESUME = "checkpoint.resume"
PAIRS = (
    _pair("optimizer.params.lr", "0.001", "0.5"),
    _pair("training.update_frequency", "1", "2"),
    _pair(RESUME, "true", "false"),
    _pair("training.batch_size", "16", "32"),
    _pair("training.seed", "1", "2"),
    _pair("training.max_updates", "4", "5"),
    _pair("training.evaluation_interval", "100", "2"),
    _pair("training.sharding", "ddp", "none"),
    _pair("training.precision", "fp32", "bf16"),
    _pair("model_config.flava.text_encoder.num_layers", "1", "2"),
    _pair("run_type", "train", "test"),
    Pair(
        "datasets",
        ("multitasking.type=round_robin",),
        ("multitasking.type=round_robin", "datasets=pmd,imagenet"),
        ("pmd,imagenet,ccnews_bookcorpus", "pmd,imagenet"),
    ),
    Pair("training.batch_size_per_device", (), ("training.batch_size_per_device=8",), ("null", "8")),
)
# rank 1 itself refuses its recipe, before torch is imported
INVALID = (
    _pair("training.batch_size", "16", "zero"),
    _pair("training.max_update", "4", "4"),
)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    from tests.conftest import DEMO
    from tests.faults.runs import OPTIONS

    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=integer(1), help="number of pairs (default: all)")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MMF_CACHE_DIR": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        for pair in (*PAIRS, *INVALID)[: options.pairs]:
            command = [SCRIPTS / "torchrun", "--standalone", "--nproc_per_node=2", __file__, f"config={DEMO}", *OPTIONS]
            command += [f"env.save_dir={folder}/run", *(f"0:{word}" for word in pair.first if pair not in INVALID)]
            command += [f"1:{word}" for word in pair.other]
            started = time.monotonic()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
            seconds = time.monotonic() - started
            lines = [line for line in done.stderr.splitlines() if line.startswith("mmf_flava: ")]
            # a process that refuses its own recipe prints only its own sentence
            same = len(lines) == 2 and (len(set(lines)) == 1 or pair in INVALID) and all(pair.key in x for x in lines)
            passed = same and done.stderr.count("exitcode  : 2") == 2
            record = {"test": f"rank 1 has another {pair.key}", "seconds": round(seconds, 1), "passed": passed}
            print(json.dumps({**record, "message": lines[:1]}), flush=True)
            failed |= not passed
    return int(failed)


def _run_with_options_of_rank() -> None:
    rank, words = os.environ["RANK"], sys.argv[1:]
    own = [word.partition(":")[2] for word in words if word.startswith(f"{rank}:")]
    common = [word for word in words if not word.startswith(("0:", "1:"))]
    os.execv(sys.executable, [sys.executable, str(SCRIPTS / "mmf_run"), *common, *own])


if __name__ == "__main__":
    if "RANK" in os.environ:
        _run_with_options_of_rank()
    sys.exit(main())
