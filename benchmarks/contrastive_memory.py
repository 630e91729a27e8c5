"""Memory per process of the global contrastive loss, on many gloo processes and on one with the complete batch.

Measures forward and backward pass: the peak of resident memory of a new process minus its memory with the local
embeddings. Gradients are compared with those of one process.
"""

from pathlib import Path
from typing import Any

import torch
from processes import reset_peak_memory, resident_memory, run_processes
from targets import BenchmarkResult, format_megabytes
from torch import nn

BATCH, WIDTH, WORLD_SIZES = 8192, 768, (8, 16)
FULL_LOGITS = 4 * BATCH * BATCH  # bytes
TOLERANCE = 1e-6  # largest absolute difference of a gradient


def contrastive_memory(folder: Path) -> list[BenchmarkResult]:
    (single,) = run_processes(_contrastive, 1, folder)
    results = [BenchmarkResult(f"contrastive loss, {BATCH} pairs, one process", format_megabytes(single["peak"]))]
    for world_size in WORLD_SIZES:
        processes = run_processes(_contrastive, world_size, folder)
        peak = max(process["peak"] for process in processes)
        measured = f"{format_megabytes(peak)}, {peak / single['peak']:.3f} of one process"
        name = f"contrastive loss, {BATCH // world_size} pairs on each of {world_size} processes"
        target = f"below one {BATCH} x {BATCH} matrix, {format_megabytes(FULL_LOGITS)}"
        results.append(BenchmarkResult(name, measured, target, peak < FULL_LOGITS))
        gradients = [torch.cat([process["gradients"][i] for process in processes]) / world_size for i in (0, 1)]
        gradients.append(sum(process["gradients"][2] for process in processes) / world_size)
        error = max((a - b).abs().max().item() for a, b in zip(gradients, single["gradients"], strict=True))
        name = f"gradients on {world_size} processes, largest difference"
        results.append(BenchmarkResult(name, f"{error:.1e}", f"below {TOLERANCE:.0e}", error < TOLERANCE))
    return results


def _contrastive(rank: int, world_size: int) -> dict[str, Any]:
    from mmf_flava.losses.contrastive import contrastive_loss
    from mmf_flava.models.outputs import Contrast

    def loss(batch: int, local: slice) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        both = [nn.functional.normalize(torch.randn(batch, WIDTH, generator=generator), dim=-1) for _ in range(2)]
        leaves = [embeddings[local].clone().requires_grad_() for embeddings in both]
        leaves.append(torch.tensor(14.3, requires_grad=True))
        del both
        positive = torch.arange(len(leaves[0]))
        before.append(reset_peak_memory())
        contrastive_loss(Contrast(*leaves, positive), single_process=False).backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    before: list[int] = []
    loss(2 * world_size, slice(2 * rank, 2 * rank + 2))  # warm-up: starts threads and connections
    gradients = loss(BATCH, slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size))
    return {"peak": resident_memory("VmHWM") - before[-1], "gradients": gradients}
