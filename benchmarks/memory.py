"""Estimated memory of each pretraining recipe on the hardware that its header states, as a markdown table."""

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.command import ArgumentParser, command
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.training.memory import GIGABYTE, MemoryEstimate, estimate_memory

RECIPES = Path(__file__).parents[1] / "projects" / "flava" / "configs" / "pretrain"
HARDWARE = re.compile(r"^# (\d+) accelerators of (\d+) GB,", re.MULTILINE)
COLUMNS = ("activations", "losses", "codebook_activations", "batch")  # "state": all others


def memory_table() -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| recipe | stated accelerators | samples per process, largest batch | state | activations | losses | codebook "
        "| batch | need per process | fits |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RECIPES.glob("*.yaml")):
        if (hardware := HARDWARE.search(path.read_text())) is not None:
            processes, gigabytes = int(hardware[1]), int(hardware[2])
            estimate = estimate_memory(read_recipe(str(path)), processes)
            lines.append(_row(path.stem, processes, gigabytes, estimate))
    return lines


def _row(recipe: str, processes: int, gigabytes: int, estimate: MemoryEstimate) -> str:
    sizes = [estimate.components[name] for name in COLUMNS]
    sizes = [estimate.total - sum(sizes), *sizes, estimate.total]
    cells = [recipe, f"{processes} x {gigabytes} GB", f"{estimate.batch_size} {estimate.dataset}"]
    cells += [f"{size / GIGABYTE:.1f} GB" for size in sizes]
    return f"| {' | '.join([*cells, 'yes' if estimate.fits(gigabytes * GIGABYTE) else 'no'])} |"


@command
def main(words: Sequence[str] | None = None) -> None:
    ArgumentParser(description=__doc__).parse_args(words)
    warnings.simplefilter("ignore")
    print("\n".join(memory_table()))


if __name__ == "__main__":
    sys.exit(main())
