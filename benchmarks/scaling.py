"""Overhead of the trainer over a bare training loop, and memory per process of the contrastive loss and of FSDP.

    python benchmarks/scaling.py                     # all benchmarks
    python benchmarks/scaling.py --only overhead     # or contrastive, fsdp

Exits with status 1 if a target is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from targets import BenchmarkResult, format_table

from mmf_flava.command import ArgumentParser, command, integer


def overhead(folder: Path, arguments: argparse.Namespace) -> list[BenchmarkResult]:
    from overhead import overhead

    return overhead(arguments.minutes, arguments.threads, folder)


def contrastive(folder: Path, _: argparse.Namespace) -> list[BenchmarkResult]:
    from contrastive_memory import contrastive_memory

    return contrastive_memory(folder)


def fsdp(folder: Path, _: argparse.Namespace) -> list[BenchmarkResult]:
    from fsdp_memory import fsdp_memory

    return fsdp_memory(folder)


BENCHMARKS = {"overhead": overhead, "contrastive": contrastive, "fsdp": fsdp}


@command
def main(words: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=BENCHMARKS, help="run only this benchmark")
    parser.add_argument("--minutes", type=float, default=3, help="duration of the overhead benchmark (%(default)s)")
    parser.add_argument("--threads", type=integer(1), default=1, help="threads in the overhead benchmark (%(default)s)")
    arguments = parser.parse_args(words)
    results: list[BenchmarkResult] = []
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            results += BENCHMARKS[name](Path(folder), arguments)
    import mmf  # its version differs from the installed package's if a checkout is on PYTHONPATH

    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "fairseq", "fairscale"))
    system = f"{os.cpu_count()} CPU cores, Python {sys.version.split()[0]}"
    print(f"\n{system}, mmf {mmf.__version__}, {packages}\n\n{format_table(results)}")
    return int(not all(result.met for result in results))


if __name__ == "__main__":
    sys.exit(main())
