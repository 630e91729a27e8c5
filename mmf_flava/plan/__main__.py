"""Command line of the plan: ``python -m mmf_flava.plan RECIPE [key=value ...] [--no-timing]``."""

import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.errors import UserError

DESCRIPTION = """\
Prints what a run will need before it starts: data, updates, learning rate, memory, disk space and hours, and everything
that is missing, each with the command that provides it. The run's folder is not changed."""


def build_parser() -> ArgumentParser:
    """Build the command-line parser."""
    parser = ArgumentParser(prog="python -m mmf_flava.plan", description=DESCRIPTION)
    parser.add_argument("recipe", metavar="RECIPE", help="recipe of mmf_run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides, as for mmf_run")
    parser.add_argument(
        "--processes", type=integer(1), default=1, metavar="N", help="processes of the run (default: %(default)s)"
    )
    parser.add_argument("--no-timing", action="store_true", help="run no updates; the time is then not known")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; return 0 if the run can start and 2 if something is missing."""
    options = build_parser().parse_intermixed_args(arguments)
    if wrong := [word for word in options.overrides if "=" not in word]:
        raise UserError(f"{wrong[0]}: expected key=value. `python -m mmf_flava.plan --help` lists the arguments.")
    options.recipe = options.recipe.removeprefix("config=")
    warnings.simplefilter("ignore")
    # imported here because MMF takes seconds to import
    from mmf_flava.plan.run_plan import make_plan

    lines, problems = make_plan(options.recipe, options.overrides, options.processes, not options.no_timing)
    print("\n".join(lines))
    if not problems:
        start = ["mmf_run"] if options.processes == 1 else [*_torchrun(options.processes)]
        print(f"Nothing is missing. Start: {shlex.join([*start, f'config={options.recipe}', *options.overrides])}")
        return 0
    print(f"Missing or wrong ({len(problems)}):")
    for problem in problems:
        print(f"  - {problem}")
    return 2


def _torchrun(processes: int) -> tuple[str, ...]:
    mmf_run = Path(sys.executable).with_name("mmf_run")
    return "torchrun", "--standalone", f"--nproc_per_node={processes}", str(mmf_run)


if __name__ == "__main__":
    sys.exit(main())
