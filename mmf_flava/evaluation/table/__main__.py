"""Command line: ``python -m mmf_flava.evaluation.table [NAME=]RUN_DIR ... [--paper T] [--format F] [--out FILE]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.command import ArgumentParser, command, file_path
from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.layout import FORMATS, build_table, render
from mmf_flava.evaluation.table.paper import TABLES
from mmf_flava.evaluation.table.results import parse_columns
from mmf_flava.files import atomic


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print or write the table and return the exit code."""
    parser = ArgumentParser(
        prog="python -m mmf_flava.evaluation.table",
        description="Shows results of runs in the layout of Table 4 of the FLAVA paper, next to the paper's results.",
    )
    parser.add_argument(
        "runs",
        metavar="[NAME=]RUN_DIR",
        nargs="+",
        help="run folder (env.save_dir); runs with the same NAME share a column (default: ours)",
    )
    parser.add_argument(
        "--paper", choices=TABLES, default="table4", help="table of the FLAVA paper (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="output format (default: the suffix of --out if it is a format, otherwise markdown)",
    )
    parser.add_argument("--out", metavar="FILE", type=file_path, help="output file (default: standard output)")
    options = parser.parse_args(arguments)
    suffix = "" if options.out is None else options.out.suffix.lower().removeprefix(".")
    format_ = options.format or (suffix if suffix in FORMATS else "markdown")
    text = render(build_table(parse_columns(options.runs), options.paper), format_)
    if options.out is None:
        print(text, end="")
    else:
        _write(options.out, text)


def _write(path: Path, text: str) -> None:
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise UserError(f"Failed to write {path} ({error.strerror}). Set another --out.") from error
    print(path)


if __name__ == "__main__":
    sys.exit(main())
