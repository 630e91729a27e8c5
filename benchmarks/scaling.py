"""What our trainer costs beside a bare loop, and what memory each of several processes needs.

    python benchmarks/scaling.py                     # all of it
    python benchmarks/scaling.py --only overhead     # or contrastive, fsdp

Exits with 1 where a target is missed.
"""

import argparse
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from targets import Row, table


def overhead(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    from overhead import overhead

    return overhead(arguments.minutes, arguments.threads, folder)


def contrastive(folder: Path, _: argparse.Namespace) -> list[Row]:
    from contrastive_memory import contrastive_memory

    return contrastive_memory(folder)


def fsdp(folder: Path, _: argparse.Namespace) -> list[Row]:
    from fsdp_memory import fsdp_memory

    return fsdp_memory(folder)


PARTS = {"overhead": overhead, "contrastive": contrastive, "fsdp": fsdp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="only this part")
    parser.add_argument("--minutes", type=float, default=3, help="of the overhead's updates (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the overhead's updates (%(default)s)")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in [arguments.only] if arguments.only else PARTS:
        with tempfile.TemporaryDirectory() as folder:
            rows += PARTS[name](Path(folder), arguments)
    import mmf  # a checkout on PYTHONPATH is not what pip would name

    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "fairseq", "fairscale"))
    system = f"{os.cpu_count()} CPU cores, Python {sys.version.split()[0]}"
    print(f"\n{system}, mmf {mmf.__version__}, {packages}\n\n{table(rows)}")
    sys.exit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
