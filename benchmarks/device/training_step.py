"""Measurements of a training step: times, MFU, peak memory, places where the host waits, and the largest kernels."""

import gc
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from device.context import Context
from device.models import Build
from device.timing import compute_rates, measure_square_gemm, seconds_per_call, synchronize

KERNELS = 25  # rows of a profile
WAITS = 15  # places in the code
PROFILED_STEPS = 3


class TrainingStep:
    """A model with AdamW. A call does one update under bf16 autocast.

    Args:
        fused: fused AdamW; otherwise foreach, torch's default on a GPU.
        max_norm: clip the gradients to this norm.
    """

    def __init__(self, context: Context, build: Build, fused: bool = True, max_norm: float | None = None) -> None:
        torch.manual_seed(0)
        self.device, self.max_norm = context.device, max_norm
        with torch.device(context.device):
            self.model, self.loss = build()
        self.model.to(context.device).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=fused)

    def __call__(self, *batch: Any, bf16: bool = True) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            loss = self.loss(*batch)
        loss.backward()
        if self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


class StepBenchmark:
    """Measures steps. Steps of the same ``work`` have the FLOPs of the first one, which must be eager."""

    def __init__(self, context: Context) -> None:
        self.context, self.flop = context, dict[str, float]()
        self.gemm_tflops = measure_square_gemm(context)

    def measure(
        self, name: str, work: str, build: Build, samples: int, profile_file: str | None = None, **options: Any
    ) -> None:
        """Report one step.

        Args:
            samples: the batch size.
            profile_file: also report the waits of the host, and write a profile to this file.
            options: of ``TrainingStep``.
        """
        context = self.context
        with context.attempt(name):
            self._clear()
            start = time.perf_counter()
            step = TrainingStep(context, build, **options)
            step()
            synchronize(context)
            first = time.perf_counter() - start
            seconds = seconds_per_call(context, step, warmup=4, repeats=12)
            peak = torch.cuda.max_memory_allocated() / 1e9 if context.cuda else None
            if work not in self.flop:
                self.flop[work] = count_step_flop(step)
            values = compute_rates(context, seconds, samples, self.flop[work], self.gemm_tflops)
            context.report(name, batch=samples, **values, peak_gb=peak, first_step_s=first)
            if profile_file is not None:
                report_host_waits(context, f"{name}: host waits", step)
                report_profile(context, f"{name}: profile", step, context.out / profile_file)

    def count_flop(self, work: str, build: Build) -> None:
        """Count the FLOPs of a ``work`` whose steps are compiled, with an eager model."""
        with self.context.attempt(f"FLOPs of {work}"):
            self.flop[work] = count_step_flop(TrainingStep(self.context, build))

    def _clear(self) -> None:
        """Free the memory of earlier steps, and forget their compiled code, whose number torch limits."""
        torch._dynamo.reset()
        gc.collect()
        if self.context.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def count_step_flop(step: TrainingStep) -> float:
    """Return the floating point operations of a step."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops()


def report_host_waits(context: Context, name: str, step: TrainingStep) -> None:
    """Report the lines of code at which one step makes the host wait for the GPU."""
    if not context.cuda:
        context.skip(name, "needs a GPU")
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    words = [f"{place} ({count}x)" for place, count in places.most_common(WAITS)]
    context.report(name, waits=sum(places.values()), places=", ".join(words) or "none")


def report_profile(context: Context, name: str, step: TrainingStep, file: Path) -> None:
    """Write the largest kernels to a file; report the fraction of time in which the device was busy."""
    steps = context.pick(PROFILED_STEPS, 1)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.cuda
    with profile(activities=activities) as recorded:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(context)
        seconds = time.perf_counter() - start
    events = recorded.key_averages()
    key = "self_device_time_total" if context.cuda else "self_cpu_time_total"
    file.write_text(events.table(sort_by=key, row_limit=KERNELS, max_name_column_width=90))
    values: dict[str, Any] = {}
    if context.cuda:
        busy = sum(event.self_device_time_total for event in events if event.device_type.name == "CUDA") / 1e6
        launches = sum(event.count for event in events if "LaunchKernel" in event.key)
        values = {"device_busy": busy / seconds, "kernels_per_step": launches / steps}
    context.report(name, file=file.name, **values)
