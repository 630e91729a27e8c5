"""``python -m mmf_flava.data.prepare COMMAND``: prepare data for the datasets of mmf_flava."""

import argparse
import sys
import time
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command, file_path, integer
from mmf_flava.data.prepare import codebook, imagenet, index, photos, pmd, text, tokenizer
from mmf_flava.data.prepare.demo import DemoOptions, prepare_demo


def parser() -> argparse.ArgumentParser:
    top = ArgumentParser(prog="python -m mmf_flava.data.prepare", description="Prepares data for FLAVA.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="create demo data without a download: scanned digits with captions, Python's documentation as text",
        description="Prepares the demo data from scikit-learn's digits and Python's documentation. "
        "Does nothing if the data are already prepared.",
    )
    default = DemoOptions()
    demo.add_argument(
        "--out",
        required=True,
        type=file_path,
        metavar="DIR",
        help="output folder, which must be new or empty, or contain demo data",
    )
    demo.add_argument(
        "--image-size", type=integer(1), default=default.image_size, help="image side in pixels (default: %(default)s)"
    )
    demo.add_argument(
        "--patch-size", type=integer(1), default=default.patch_size, help="patch side in pixels (default: %(default)s)"
    )
    demo.add_argument(
        "--codes", type=integer(1), default=default.codes, help="number of codebook entries (default: %(default)s)"
    )
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
    demo.set_defaults(run=run_demo)
    pmd.add_parser(commands)
    imagenet.add_parser(commands)
    text.add_parser(commands)
    tokenizer.add_parser(commands)
    codebook.add_parser(commands)
    photos.add_parser(commands)
    index.add_parser(commands)
    return top


def run_demo(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    options = DemoOptions(arguments.image_size, arguments.patch_size, arguments.codes)
    manifest = prepare_demo(arguments.out, options, progress=not arguments.quiet)
    if not manifest["created"]:
        print(f"The demo data are already in {arguments.out}; nothing to do.")
        return
    counts = manifest["counts"]
    pairs = ", ".join(f"{count} {split}" for split, count in counts["pairs"].items())
    images = ", ".join(f"{count} {split}" for split, count in counts["images"].items())
    text = ", ".join(f"{count['tokens']} {split}" for split, count in counts["text"].items())
    print(f"Prepared the demo data in {arguments.out} in {time.perf_counter() - started:.1f} s:")
    print(f"  pairs  {pairs}\n  images {images}\n  tokens {text}")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    parsed = parser().parse_args(arguments)
    parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
