"""``python -m mmf_flava.data.show RECIPE [--dataset pmd] [--split train]``: write an HTML page of samples."""

import argparse
import sys
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command, file_path, integer


def parser() -> argparse.ArgumentParser:
    top = ArgumentParser(
        prog="python -m mmf_flava.data.show",
        description="Writes an HTML page with samples and statistics of the datasets of a recipe.",
    )
    top.add_argument("recipe", help="recipe of mmf_run, or a YAML file that has only the section dataset_config")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides, as for mmf_run")
    top.add_argument("--dataset", metavar="NAME", help="dataset of the recipe (default: all)")
    top.add_argument("--split", default="train", choices=("train", "val", "test"), help="split (default: %(default)s)")
    top.add_argument(
        "--samples", type=integer(1), default=24, metavar="N", help="samples shown per dataset (default: %(default)s)"
    )
    top.add_argument(
        "--start", type=integer(0, 2**63 - 1), default=0, metavar="N", help="index of the first sample (default: 0)"
    )
    top.add_argument(
        "--statistics",
        type=integer(1),
        default=2000,
        metavar="N",
        help="maximum number of records per dataset that the statistics are computed from (default: %(default)s)",
    )
    top.add_argument("--out", type=file_path, metavar="FILE", help="output file (default: show_RECIPE.html)")
    return top


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    options = parser().parse_intermixed_args(arguments)  # options and key=value in any order
    from mmf_flava.data.show.recipe_page import write_recipe_page  # imports MMF

    write_recipe_page(options)


if __name__ == "__main__":
    sys.exit(main())
