"""fsdp on two processes with each of the 63 subsets of the losses: ``python -m tests.faults.unused_parameters``.

Weights and moments of parameters without a gradient must not change, and fp32 weights must equal those of one process.
``tests/training/test_fsdp.py`` tries some subsets.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence

import torch
import torch.distributed as dist

from mmf_flava.command import ArgumentParser, command, integer
from tests.processes import run_ranks
from tests.training.loss_subsets import SUBSETS, changed_unused, largest_differences, train_subset

PRECISIONS = ("fp32", "bf16", "fp16")
TOLERANCE = 1e-6


def train_sharded(rank: int, folder: str, count: int) -> None:
    """Train ``count`` subsets in each precision; the first process saves the records."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    for precision in PRECISIONS:
        records = {subset: train_subset(subset, rows, precision, "fsdp") for subset in SUBSETS[-count:]}
        if rank == 0:
            torch.save(records, f"{folder}/{precision}")
    dist.barrier()
    dist.destroy_process_group()


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--subsets", type=integer(1), default=len(SUBSETS), help="number of subsets, from the largest (default: all)"
    )
    count = min(parser.parse_args(arguments).subsets, len(SUBSETS))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        run_ranks(train_sharded, (folder, count), 2)
        single = {subset: train_subset(subset) for subset in SUBSETS[-count:]}
        for precision in PRECISIONS:
            records = torch.load(f"{folder}/{precision}")
            unused = {subset: [record["unused"] for record in single[subset][1:]] for subset in records}
            changed = [name for subset in records for name in changed_unused(records[subset], unused[subset])]
            result = {"test": "unused parameters", "precision": precision, "subsets": len(records)}
            result |= {"unused": sum(len(names) for lists in unused.values() for names in lists)}
            result |= {"changed": len(changed)}
            passed = not changed and len(records) == count
            if precision == "fp32":
                found = [largest_differences(records[subset], single[subset]) for subset in records]
                result |= {name: max(differences[name] for differences in found) for name in found[0]}
                passed &= result["weights"] <= TOLERANCE and result["moments"] <= TOLERANCE and result["steps"] == 0
            print(json.dumps({**result, "passed": passed}), flush=True)
            failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
