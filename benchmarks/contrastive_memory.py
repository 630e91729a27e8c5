"""What memory the global contrastive loss needs on each of many gloo processes, and on one with the whole batch.

Forward and backward; the peak of resident memory of a fresh process beyond what it had with its own vectors. The
gradients must agree.
"""

from pathlib import Path
from typing import Any

import torch
from processes import forget_peak, processes, resident
from targets import Row, megabytes
from torch import nn

ROWS, WIDTH, RANKS = 8192, 768, (8, 16)
WHOLE_LOGITS = 4 * ROWS * ROWS
FAR = 1e-6  # largest absolute difference of a gradient


def contrastive_memory(folder: Path) -> list[Row]:
    (whole,) = processes(_contrastive, 1, folder)
    rows = [Row(f"contrastive, {ROWS} rows, one process", megabytes(whole["peak"]))]
    for ranks in RANKS:
        parts = processes(_contrastive, ranks, folder)
        peak = max(part["peak"] for part in parts)
        figure = f"{megabytes(peak)}, {peak / whole['peak']:.3f} of one process's"
        what = f"contrastive, {ROWS // ranks} rows on each of {ranks}"
        target = f"below one {ROWS} x {ROWS} matrix, {megabytes(WHOLE_LOGITS)}"
        rows.append(Row(what, figure, target, peak < WHOLE_LOGITS))
        found = [torch.cat([part["gradients"][i] for part in parts]) / ranks for i in (0, 1)]
        found.append(sum(part["gradients"][2] for part in parts) / ranks)
        far = max((a - b).abs().max().item() for a, b in zip(found, whole["gradients"], strict=True))
        rows.append(Row(f"its gradients on {ranks}, farthest", f"{far:.1e}", f"below {FAR:.0e}", far < FAR))
    return rows


def _contrastive(rank: int, ranks: int) -> dict[str, Any]:
    from mmf_flava.losses.contrastive import contrastive_loss
    from mmf_flava.models.outputs import Contrast

    def loss(rows: int, part: slice) -> list[torch.Tensor]:
        draw = torch.Generator().manual_seed(0)
        both = [nn.functional.normalize(torch.randn(rows, WIDTH, generator=draw), dim=-1) for _ in range(2)]
        leaves = [vectors[part].clone().requires_grad_() for vectors in both]
        leaves.append(torch.tensor(14.3, requires_grad=True))
        del both
        positive = torch.ones(len(leaves[0]), dtype=torch.bool)
        before.append(forget_peak())
        contrastive_loss(Contrast(*leaves, positive), alone=False).backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    before: list[int] = []
    loss(2 * ranks, slice(2 * rank, 2 * rank + 2))  # wakes threads and connections
    gradients = loss(ROWS, slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks))
    return {"peak": resident("VmHWM") - before[-1], "gradients": gradients}
