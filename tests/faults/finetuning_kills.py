"""Kills of finetunings: ``python -m tests.faults.finetuning_kills`` kills small finetunings at random times.

Each of ``FINETUNINGS``, with dropout, validated and saved every few updates, is done once without a kill on one process
and on two. Then it is killed (SIGKILL) repeatedly, also while it starts and while it saves, and resumed each time.
Weights, optimizer, metrics, the best checkpoint and the final metrics must end equal to the last bit.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from tests.faults.finetuning_recipes import FINETUNINGS
from tests.faults.forked_runs import kill_and_compare

DROPOUT = 0.1
OPTIONS = ("training.evaluation_interval=10", "training.checkpoint_interval=3")


def kill_finetuning(root: Path, name: str, kills: int, updates: int, processes: int, seed: int) -> dict[str, Any]:
    """Do a finetuning twice, once with ``kills`` at random times, and compare the results."""
    recipe = (*FINETUNINGS[name].recipe(root.parent / "data" / name, DROPOUT), *OPTIONS)
    quiet, result = kill_and_compare(root, recipe, kills, updates, processes, seed)
    best = int(quiet.best_checkpoint().name.removeprefix("update_").partition(".")[0])
    return {**result, "test": f"SIGKILL of {name} at random times", "best update": best}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finetunings", choices=FINETUNINGS, nargs="*", default=list(FINETUNINGS))
    parser.add_argument("--updates", type=integer(1), default=150, help="updates per run (default: %(default)s)")
    parser.add_argument("--kills", type=integer(0), default=30, help="kills per run (default: %(default)s)")
    parser.add_argument("--processes", type=integer(1), nargs="*", default=(1, 2))
    parser.add_argument("--seed", type=integer(0), default=0, help="random seed of the times (default: %(default)s)")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in options.finetunings:
            for processes in options.processes:
                root = Path(folder, f"{name}_{processes}")
                result = kill_finetuning(root, name, options.kills, options.updates, processes, options.seed)
                print(json.dumps(result), flush=True)
                failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
