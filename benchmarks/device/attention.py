"""Part ``attention``: scaled dot product attention with the shapes of flava_base in bf16, forward and backward.

For each backend its time, for the default its kernel, and the times of the first calls with new lengths.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from device.context import Context
from device.timing import seconds_per_call, synchronize

HEADS, HEAD_SIZE = 12, 64
BACKENDS: dict[str, SDPBackend | None] = {
    "default": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
CPU_BACKENDS = ("default", "flash", "math")
NEW_LENGTHS = range(201, 205)


@dataclass(frozen=True)
class Case:
    """Shapes of one attention: ``queries`` x ``keys`` positions, with or without a mask of padding."""

    name: str
    batch: int
    queries: int
    keys: int
    masked: bool


# 197: [CLS] and patches; 275: [CLS_M], image and 77 tokens; 88: the positions that the losses need
CASES = (
    Case("image encoder", 128, 197, 197, False),
    Case("multimodal encoder", 64, 275, 275, True),
    Case("multimodal encoder, last block", 64, 88, 275, True),
    Case("text encoder", 128, 77, 77, True),
    Case("multimodal encoder without mask", 64, 275, 275, False),
)


def run(context: Context) -> None:
    """Report every case with every backend, then new lengths."""
    backends = {name: backend for name, backend in BACKENDS.items() if context.cuda or name in CPU_BACKENDS}
    for case in CASES:
        for name, backend in backends.items():
            with context.attempt(f"{case.name}, {name}"):
                report_case(context, case, name, backend)
    for number, (name, backend) in enumerate(backends.items()):
        if backend is not SDPBackend.MATH:
            with context.attempt(f"new lengths, {name}"):
                report_new_lengths(context, name, backend, 10 * number)


def use_backend(backend: SDPBackend | None) -> AbstractContextManager[Any]:
    """Return a context in which attention uses one backend; None: torch selects it."""
    return nullcontext() if backend is None else sdpa_kernel(backend)


def build_inputs(context: Context, batch: int, queries: int, keys: int) -> list[Tensor]:
    """Return query, key and value in the layout of timm's blocks."""
    shapes = [(batch, length, HEADS, HEAD_SIZE) for length in (queries, keys, keys)]
    tensors = [torch.randn(shape, device=context.device, dtype=torch.bfloat16) for shape in shapes]
    return [tensor.transpose(1, 2).requires_grad_() for tensor in tensors]


def attend(inputs: list[Tensor], mask: Tensor | None) -> None:
    """Run attention forward and backward."""
    query, key, value = inputs
    torch.autograd.grad(scaled_dot_product_attention(query, key, value, attn_mask=mask).sum(), inputs)


def report_case(context: Context, case: Case, name: str, backend: SDPBackend | None) -> None:
    """Report the time of one case. A backend that does not support it is skipped."""
    batch, mask = context.pick(case.batch, 2), None
    inputs = build_inputs(context, batch, case.queries, case.keys)
    if case.masked:
        lengths = torch.randint(60, case.keys, (batch, 1), device=context.device)
        mask = (torch.arange(case.keys, device=context.device) < lengths)[:, None, None, :]
    try:
        with use_backend(backend):
            attend(inputs, mask)
            seconds = seconds_per_call(context, lambda: attend(inputs, mask), repeats=20)
    except RuntimeError as error:
        if backend is None:
            raise
        context.skip(f"{case.name}, {name}", f"not supported: {str(error).splitlines()[0][:80]}")
        return
    # forward 2 products, backward 5
    flop = 3.5 * 4 * batch * HEADS * case.queries * case.keys * HEAD_SIZE
    values: dict[str, Any] = {"ms": 1e3 * seconds, "tflops": flop / seconds / 1e12}
    if context.cuda and backend is None:
        values["kernels"] = find_kernels(inputs, mask)
    context.report(f"{case.name}, {name}", **values)


def find_kernels(inputs: list[Tensor], mask: Tensor | None) -> str:
    """Return the two kernels with the longest times."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        attend(inputs, mask)
        torch.cuda.synchronize()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_device_time_total)
    return "; ".join(event.key[:70] for event in events[:2])


def report_new_lengths(context: Context, name: str, backend: SDPBackend | None, offset: int) -> None:
    """Report the times of the first calls with lengths that this process has not used before."""
    times = []
    for length in context.pick(NEW_LENGTHS, NEW_LENGTHS[:2]):
        inputs = build_inputs(context, context.pick(64, 2), length + offset, length + offset)
        synchronize(context)
        start = time.perf_counter()
        with use_backend(backend):
            attend(inputs, None)
        synchronize(context)
        times.append(1e3 * (time.perf_counter() - start))
    context.report(f"new lengths, {name}", ms_per_call=times)
