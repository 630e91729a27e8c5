"""The Markdown table of the results: pure functions of the results' dictionaries."""

from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
# key of a result -> how its value is written; other keys are written as "key value"
FORMATS = {
    "ms": "{:,.4g} ms",
    "seconds": "{:,.4g} s",
    "samples_per_s": "{:,.4g} samples/s",
    "images_per_s": "{:,.4g} images/s",
    "tflops": "{:,.4g} TFLOP/s",
    "tb_per_s": "{:.3g} TB/s",
    "gb_per_s": "{:.3g} GB/s",
    "tflop": "{:.4g} TFLOP per step",
    "first_samples_per_s": "{:,.4g} in the first log record",
    "last_samples_per_s": "{:,.4g} in the last",
    "mfu": "MFU {:.1%} of 989 TFLOP/s",
    "mfu_of_gemm": "{:.1%} of the measured GEMM rate",
    "size_mb": "{:,.4g} MB",
    "records": "{:,} records",
    "ms_to_device": "{:.3g} ms to the device",
    "waits": "{:,} waits",
    "peak_gb": "peak memory {:.3g} GB",
    "memory_gb": "{:.3g} GB",
    "batch_mb": "{:.3g} MB per batch",
    "first_step_s": "first step {:.3g} s",
    "data_wait": "{:.1%} of the time waiting for data",
    "device_busy": "device busy {:.0%} of the time",
    "kernels_per_step": "{:,.0f} kernels per step",
    "zero_shot_accuracy": "zero-shot accuracy {:.3f}",
    "compared": "{:,} losses compared",
    "limit": "limit {:g}",
}
HIDDEN = ("part", "name", "status", "error", "skipped", "code")
HEADER_RESULTS = ("versions", "device")


def format_table(results: Sequence[Result]) -> str:
    """Return the environment in one paragraph, and a table with a row for each result.

    The row of a part that has passed is left out, unless it is the part's only one. Failed and skipped parts and
    results have a row that says why.
    """
    lines = [format_environment(results), "", "| part | result | measured |", "|---|---|---|"]
    for result in sort_by_part(results):
        if result["part"] == "environment" and result["name"] in HEADER_RESULTS and "error" not in result:
            continue
        if result["name"] == "part" and result["status"] == "passed":
            continue
        name = "all results" if result["name"] == "part" else result["name"]
        lines.append(f"| {result['part']} | {_escape(name)} | {_escape(format_values(result))} |")
    return "\n".join(lines)


def sort_by_part(results: Sequence[Result]) -> list[Result]:
    """Return the results with those of one part together, in the order in which the parts reported first."""
    order = list(dict.fromkeys(result["part"] for result in results))
    return sorted(results, key=lambda result: order.index(result["part"]))


def format_environment(results: Sequence[Result]) -> str:
    """Return card, driver, versions and commit, or that they were not measured."""
    found = {result["name"]: result for result in results if result["part"] == "environment"}
    words = []
    if device := found.get("device"):
        words.append(str(device.get("card")))
        words += [f"{key} {device[key]}" for key in ("driver", "cuda", "cudnn", "nccl") if device.get(key)]
    if versions := found.get("versions"):
        keys = [key for key in versions if key not in (*HIDDEN, "commit") and versions[key]]
        words += [f"{key} {versions[key]}" for key in keys]
        words.append(f"commit {versions.get('commit') or 'unknown'}")
    return f"{', '.join(words)}." if words else "Card, driver, versions and commit: not measured."


def format_values(result: Result) -> str:
    """Return the measured values of a result in one line, after its error or the reason why it was skipped."""
    words = []
    if result.get("status") == "timeout":
        words.append(f"**failed**: {result['error']}")
    elif "error" in result or result.get("status") == "failed":
        words.append(f"**failed**: {result.get('error', 'no reason given')}")
    elif "skipped" in result:
        words.append(f"skipped: {result['skipped']}")
    words += [_format_value(key, value) for key, value in result.items() if key not in HIDDEN and value is not None]
    return "; ".join(words) if words and words[0].startswith("**") else ", ".join(words)


def _format_value(key: str, value: Any) -> str:
    if key in FORMATS and isinstance(value, int | float):
        return FORMATS[key].format(value)
    if isinstance(value, list):
        value = ", ".join(_format_number(entry) for entry in value)
    elif isinstance(value, dict):
        value = ", ".join(f"{name} {_format_number(entry)}" for name, entry in value.items())
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{key.replace('_', ' ')} {_format_number(value)}"


def _format_number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def count_results(results: Sequence[Result]) -> str:
    """Return a sentence with the numbers of results, of parts, and of failed and skipped ones."""
    parts = [result for result in results if result["name"] == "part"]
    single = [result for result in results if result["name"] != "part"]

    def count(items: Sequence[Result], key: str) -> int:
        return sum(key in item for item in items)

    return (
        f"{len(single)} results ({count(single, 'error')} failed, {count(single, 'skipped')} skipped) of {len(parts)} "
        f"parts ({count(parts, 'error')} failed, {count(parts, 'skipped')} skipped)."
    )
