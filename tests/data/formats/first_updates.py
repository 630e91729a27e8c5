"""First updates: ``python -m tests.data.formats.first_updates`` trains one update on each format of docs/own_data.md.

The data are written by the code of the page. ``finetune/demo_own.yaml`` and ``pretrain/demo_own.yaml`` run with the
keys of the page alone, as far as the format has the labels and the captions that they need.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command
from mmf_flava.config.recipes import recipe_path
from tests.faults.forked_runs import ForkedRun

from . import tools
from .toys import make_pets

RECORDS = 40
COMMON = (
    "training.max_epochs=null",
    "training.max_updates=1",
    "training.batch_size=4",
    "training.num_workers=0",
    "training.tensorboard=false",
)
RECIPES = {
    "finetune/demo_own": (*COMMON, "dataset_config.image_text_classification"),
    "pretrain/demo_own": (*COMMON, "dataset_config.pmd"),
}


def recipes_of(name: str) -> list[str]:
    """Return the recipes for the format ``name``: not all formats have labels and captions."""
    without = {"images with .txt": "finetune", "class folders": "pretrain"}
    return [recipe for recipe in RECIPES if not any(key in name and recipe.startswith(without[key]) for key in without)]


def first_update(root: Path, row: tuple[str, str, str, str], recipe: str) -> dict[str, Any]:
    """Train one update on the format ``row`` in the new folder ``root``."""
    name, code, config, _ = row
    root.mkdir()
    with contextlib.chdir(root):
        tools.prepare(make_pets(RECORDS))
        tools.write(make_pets(RECORDS), code)
    *options, section = RECIPES[recipe]
    keys = tools.parse_config(config)
    words = [f"{section}.data_dir={root / keys.pop('data_dir')}"]
    words += [f"{section}.{key}={json.dumps(value)}" for key, value in keys.items()]
    run = ForkedRun(root, "run", *options, *words, recipe=[f"config={recipe_path(recipe)}"])
    code_of_exit = run.start().wait()
    updates = [update for split, update in run.metrics() if split == "train"] if code_of_exit == 0 else []
    result = {"test": f"first update: {name}", "recipe": recipe, "passed": updates == [1]}
    return result if result["passed"] else {**result, "log": run.log.read_text()[-1000:]}


def first_updates(root: Path, rows: Sequence[tuple[str, str, str, str]]) -> Iterator[dict[str, Any]]:
    """Train one update on every format with every recipe for it, in folders in ``root``."""
    for number, row in enumerate(rows):
        for recipe in recipes_of(row[0]):
            yield first_update(root / f"{number}_{Path(recipe).parent}", row, recipe)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for result in first_updates(Path(folder), tools.ROWS):
            print(json.dumps(result), flush=True)
            failed |= not result["passed"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
