"""Times on a device: seconds per call, and the rate of matrix products."""

import time
from collections.abc import Callable
from typing import Any

import torch

from device.context import Context

PEAK_TFLOPS = 989  # dense bf16 of an H100 or H200 SXM, from the data sheet
SQUARE = 8192  # side of the matrices that the measured GEMM rate is from


def synchronize(context: Context) -> None:
    """Wait until the device has finished."""
    if context.cuda:
        torch.cuda.synchronize()


def seconds_per_call(context: Context, call: Callable[[], Any], warmup: int = 3, repeats: int = 10) -> float:
    """Return the mean seconds of ``repeats`` consecutive calls. With ``--tiny`` the second call is measured."""
    for _ in range(context.pick(warmup, min(warmup, 1))):
        call()
    synchronize(context)
    repeats = context.pick(repeats, 1)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(context)
    return (time.perf_counter() - start) / repeats


def measure_gemm(context: Context, m: int, k: int, n: int) -> float:
    """Return the TFLOP/s of a bf16 product of (m, k) and (k, n)."""
    left = torch.randn(m, k, device=context.device, dtype=torch.bfloat16)
    right = torch.randn(k, n, device=context.device, dtype=torch.bfloat16)
    return 2 * m * k * n / seconds_per_call(context, lambda: left @ right, repeats=30) / 1e12


def measure_square_gemm(context: Context) -> float:
    """Return the TFLOP/s of a large square bf16 product, the second reference of the MFU."""
    side = context.pick(SQUARE, 128)
    return measure_gemm(context, side, side, side)


def compute_utilisation(context: Context, tflops: float, gemm_tflops: float) -> dict[str, float]:
    """Return TFLOP/s and MFU: on a GPU of the data sheet's rate, and of the measured GEMM rate.

    Args:
        gemm_tflops: the result of ``measure_square_gemm``.
    """
    values = {"tflops": tflops, "mfu_of_gemm": tflops / gemm_tflops}
    return {**values, "mfu": tflops / PEAK_TFLOPS} if context.cuda else values


def compute_rates(
    context: Context, seconds: float, samples: int, flop: float, gemm_tflops: float, unit: str = "samples"
) -> dict[str, float]:
    """Return the rates of a step: ms, samples per second, TFLOP/s and MFU.

    Args:
        flop: floating point operations of the step.
    """
    utilisation = compute_utilisation(context, flop / seconds / 1e12, gemm_tflops)
    return {"ms": 1e3 * seconds, f"{unit}_per_s": samples / seconds, **utilisation}
