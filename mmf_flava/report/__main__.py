"""Command line of the report: ``python -m mmf_flava.report RUN_DIR [RUN_DIR ...] [--out FILE]``."""

import sys
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command, file_path
from mmf_flava.report import write_report


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, print its path and return the exit code."""
    parser = ArgumentParser(
        prog="python -m mmf_flava.report",
        description="Creates an HTML report of a training run, or a comparison of several runs.",
    )
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", type=file_path, help="run folder (env.save_dir)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=file_path,
        help="output file (default: report.html in RUN_DIR, or comparison.html in the first of several RUN_DIRs)",
    )
    options = parser.parse_args(arguments)
    print(write_report(options.run_dirs, options.out))


if __name__ == "__main__":
    sys.exit(main())
