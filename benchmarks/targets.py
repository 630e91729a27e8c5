"""Results of benchmarks with their targets, formatted as a Markdown table."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class BenchmarkResult:
    """A measured value with an optional target."""

    name: str
    measured: str
    target: str = ""
    met: bool = True


def format_table(results: Sequence[BenchmarkResult]) -> str:
    """Format results as a Markdown table."""
    lines = ["| benchmark | measured | target | met |", "|---|---|---|---|"]
    for result in results:
        met = ("yes" if result.met else "NO") if result.target else ""
        lines.append(f"| {result.name} | {result.measured} | {result.target} | {met} |")
    return "\n".join(lines)


def format_megabytes(count: float) -> str:
    """Format a number of bytes in MB."""
    return f"{count / 1e6:,.0f} MB"
