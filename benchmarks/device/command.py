"""The device check: ``make device``, or ``python benchmarks/device``.

Trains, measures and compares on one GPU in eight minutes. Every result is one line of JSON on standard output and in
OUT/results.jsonl; a Markdown table of all results follows, also in OUT/table.md. OUT has profiles and logs as well.
Each part runs in its own process; a part that fails or exceeds its time limit does not stop the others. The exit code
is 1 if a part failed. ``--device cpu --tiny`` runs every part with small models on a CPU.
"""

import argparse
import importlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from device.context import Context
from device.parts import PARTS, Part, select_parts
from device.runner import Options, Runner
from device.table import count_results, format_table
from mmf_flava.command import ArgumentParser, command

ROOT = Path(__file__).resolve().parents[2]
BUDGET = {"cuda": 470, "cpu": 3000}
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}


def build_parser() -> ArgumentParser:
    """Build the parser of the command line."""
    parser = ArgumentParser(
        prog="python benchmarks/device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small models and few repeats, to test the check itself")
    parser.add_argument("--parts", help=f"comma-separated, of {', '.join(part.name for part in PARTS)} (all)")
    parser.add_argument(
        "--budget", type=float, help="seconds for all parts; the rest is skipped (470 on a GPU, 3000 on a CPU)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "save" / "device", help="folder of results (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder of temporary files, kept afterwards (default: removed)")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--module", help=argparse.SUPPRESS)
    return parser


def run_part(name: str, module: str, context: Context) -> int:
    """Run one part in this process and return its exit code."""
    with context.attempt(name):
        importlib.import_module(module).run(context)
    return int(context.failures > 0)


@command
def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Run the command line and return its exit code: 0, 1 if a part failed, 2 for invalid options."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    out = options.out.absolute()
    if options.run:
        return run_part(
            options.run, options.module, Context(options.run, options.device, options.tiny, out, options.work)
        )
    try:
        selected = select_parts(options.parts, parts)
    except ValueError as error:
        parser.error(f"--parts: {error}")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: no GPU was found. Use --device cpu --tiny to run the check on a CPU.")
    out.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    work = options.work.absolute() if options.work else Path(tempfile.mkdtemp(prefix="device_check_"))
    work.mkdir(parents=True, exist_ok=True)
    budget = options.budget if options.budget is not None else BUDGET[options.device]
    runner = Runner(Options(options.device, options.tiny, out, work, budget))
    try:
        passed = runner.run(selected)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
        table = format_table(runner.results)
        (out / "table.md").write_text(table + "\n")
        print(f"\n{table}\n\n{count_results(runner.results)}", flush=True)
    return int(not passed)
