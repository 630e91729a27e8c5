"""Kills of DINO: ``python -m tests.faults.dino_kills`` kills small runs of ``flava_dino`` at random times.

The demo's recipe with few crops, validated with nearest neighbours and saved every few updates, is done once without a
kill on one process, and on two with ``ddp`` and ``fsdp``. Then it is killed (SIGKILL) repeatedly, also while it starts
and while it saves, and resumed each time. Student, teacher, centre, optimizer, metrics and the best checkpoint must end
equal to the last bit.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.config.recipes import recipe_path
from tests.faults.forked_runs import kill_and_compare

PROCESSES = {"none": 1, "ddp": 2, "fsdp": 2}  # sharding -> number of processes
RECIPE = (
    f"config={recipe_path('pretrain/demo_image_encoder_dino')}",
    *(f"model_config.flava_dino.image_encoder.{size}" for size in ("num_layers=2", "hidden_size=32", "mlp_size=64")),
    "model_config.flava_dino.head.out_dim=64",
    "model_config.flava_dino.image_encoder.dropout=0.1",
    "dataset_config.imagenet.processors.image_processor.params.num_local=2",
    "training.batch_size=8",
    "training.log_interval=1",
    "training.tensorboard=false",
    "training.evaluation_interval=10",
    "training.checkpoint_interval=3",
    "evaluation.linear_probe=null",
    "evaluation.attention_maps=null",
    "checkpoint.resume=true",
)


def kill_dino(root: Path, sharding: str, kills: int, updates: int, seed: int) -> dict[str, Any]:
    """Do a run twice, once with ``kills`` at random times, and compare the results."""
    recipe = (*RECIPE, f"training.sharding={sharding}")
    _, result = kill_and_compare(root, recipe, kills, updates, PROCESSES[sharding], seed)
    return {**result, "test": f"SIGKILL of flava_dino ({sharding}) at random times"}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shardings", choices=PROCESSES, nargs="*", default=list(PROCESSES))
    parser.add_argument("--updates", type=integer(1), default=150, help="updates per run (default: %(default)s)")
    parser.add_argument("--kills", type=integer(0), default=30, help="kills per run (default: %(default)s)")
    parser.add_argument("--seed", type=integer(0), default=0, help="random seed of the times (default: %(default)s)")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for sharding in options.shardings:
            result = kill_dino(Path(folder, sharding), sharding, options.kills, options.updates, options.seed)
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
