"""``python -m mmf_flava.evaluation.table [NAME=]RUN_DIR ... [--paper TABLE] [--format FORMAT] [--out FILE]``"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.layout import FORMATS, render, table
from mmf_flava.evaluation.table.paper import TABLES
from mmf_flava.evaluation.table.results import columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints or writes the table; returns the exit code: 0, or 2 for a mistake that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m mmf_flava.evaluation.table",
        description="Puts the results of any runs into the layout of the paper's Table 4, beside the paper's figures.",
    )
    parser.add_argument(
        "runs",
        metavar="[NAME=]RUN_DIR",
        nargs="+",
        help="folder of a run (its env.save_dir); runs of one NAME share a column (default: ours)",
    )
    parser.add_argument("--paper", choices=TABLES, default="table4", help="the columns beside ours (%(default)s)")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else markdown")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where the table goes (default: standard output)")
    options = parser.parse_args(arguments)
    suffix = "" if options.out is None else options.out.suffix.removeprefix(".")
    form = options.format or (suffix if suffix in FORMATS else "markdown")
    try:
        text = render(table(columns(options.runs), options.paper), form)
        if options.out is None:
            print(text, end="")
        else:
            _write(options.out, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out.") from error
    print(path)


if __name__ == "__main__":
    sys.exit(main())
