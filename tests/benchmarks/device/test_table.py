"""The Markdown table of the device check, from given results."""

import runpy
from pathlib import Path

TABLE = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "device" / "table.py"))
format_table, count_results = TABLE["format_table"], TABLE["count_results"]

ENVIRONMENT = [
    {"part": "environment", "name": "versions", "commit": "abc123", "python": "3.12.1", "torch": "2.11.0", "mmf": None},
    {"part": "environment", "name": "device", "card": "NVIDIA H100", "driver": "575.1", "cuda": "13.0", "cudnn": 91500},
]
RATES = {"ms": 38.25, "samples_per_s": 1673.2, "tflops": 480.1, "mfu": 0.4854, "mfu_of_gemm": 0.61, "peak_gb": 21.3}
RESULTS = [
    *ENVIRONMENT,
    {"part": "step", "name": "eager, pair", "batch": 64, **RATES, "first_step_s": None},
    {"part": "environment", "name": "part", "status": "passed", "code": 0, "seconds": 8.0},
    {"part": "precision", "name": "bf16", "difference_of_losses": 0.2, "limit": 0.1, "error": "0.2 | expected 0.1"},
    {"part": "step", "name": "compiled, pair", "error": "RuntimeError: out of\nmemory", "seconds": 3.0},
    {"part": "step", "name": "part", "status": "failed", "code": 1, "error": "failed results: compiled, pair"},
    {"part": "precision", "name": "part", "status": "timeout", "code": -9, "error": "stopped at its limit of 100 s"},
    {"part": "loader", "name": "part", "status": "skipped", "skipped": "12 s of the budget are left"},
    {"part": "attention", "name": "image encoder, math", "skipped": "not supported by this backend"},
]


def test_table_has_environment_values_failures_and_skipped_parts():
    assert format_table(RESULTS).splitlines() == [
        "NVIDIA H100, driver 575.1, cuda 13.0, cudnn 91500, python 3.12.1, torch 2.11.0, commit abc123.",
        "",
        "| part | result | measured |",
        "|---|---|---|",
        "| step | eager, pair | batch 64, 38.25 ms, 1,673 samples/s, 480.1 TFLOP/s, MFU 48.5% of 989 TFLOP/s, "
        "61.0% of the measured GEMM rate, peak memory 21.3 GB |",
        "| step | compiled, pair | **failed**: RuntimeError: out of memory; 3 s |",
        "| step | all results | **failed**: failed results: compiled, pair |",
        "| precision | bf16 | **failed**: 0.2 \\| expected 0.1; difference of losses 0.2; limit 0.1 |",
        "| precision | all results | **failed**: stopped at its limit of 100 s |",
        "| loader | all results | skipped: 12 s of the budget are left |",
        "| attention | image encoder, math | skipped: not supported by this backend |",
    ]
    assert count_results(RESULTS) == "6 results (2 failed, 1 skipped) of 4 parts (2 failed, 1 skipped)."


def test_nested_values_are_written_in_words():
    values = {"losses": {"itm": 0.5, "mlm": 7.25}, "bit_equal": True, "ms": [1.5, 2]}
    row = format_table([{"part": "precision", "name": "fp32", **values}]).splitlines()[-1]
    assert row == "| precision | fp32 | losses itm 0.5, mlm 7.25, bit equal yes, ms 1.5, 2 |"


def test_missing_environment_is_not_measured():
    assert format_table([]).startswith("Card, driver, versions and commit: not measured.")
