"""``python -m mmf_flava.data.prepare COMMAND``: prepare data for the datasets of mmf_flava."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from mmf_flava.command import ArgumentParser, command

COMMANDS = ("demo", "pmd", "imagenet", "text", "tokenizer", "codebook", "photos", "index")  # modules of this package


def parser(name: str = "") -> argparse.ArgumentParser:
    """Return the parser of one command; of all if there is no such command.

    The imports of the other commands take 0.2 s, also at the start of each worker, which imports this module.
    """
    top = ArgumentParser(prog="python -m mmf_flava.data.prepare", description="Prepares data for FLAVA.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (name,) if name in COMMANDS else COMMANDS:
        import_module(f"mmf_flava.data.prepare.{module}").add_parser(commands)
    return top


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    parsed = parser(words[0] if words else "").parse_args(words)
    parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
