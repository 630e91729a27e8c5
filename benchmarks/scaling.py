"""What memory the global contrastive loss needs on each of many gloo processes, and on one with the whole batch.

    python benchmarks/scaling.py

Forward and backward; the peak of resident memory of a fresh process beyond what it had with its own vectors. The
gradients must agree. Exits with 1 where a target is missed.
"""

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

ROWS, WIDTH, RANKS = 8192, 768, (8, 16)
WHOLE_LOGITS = 4 * ROWS * ROWS
FAR = 1e-6  # largest absolute difference of a gradient
Row = tuple[str, str, str, bool]  # what, figure, target, whether it is met


def _resident(what: str) -> int:
    """Bytes: ``VmRSS`` now, ``VmHWM`` the most since ``_forget_peak``."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def _forget_peak() -> int:
    """Sets the peak to what is resident now, and returns that."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _processes(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What ``work(rank, count, *arguments)`` returns in each of ``count`` fresh gloo processes."""
    run = tempfile.mkdtemp(dir=folder)
    multiprocessing.spawn(_process, (work, count, run, arguments), nprocs=count)
    return [torch.load(f"{run}/{rank}") for rank in range(count)]


def _process(rank: int, work: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    torch.save(work(rank, count, *arguments), f"{folder}/{rank}")
    distributed.barrier()
    distributed.destroy_process_group()


def contrastive(folder: Path) -> list[Row]:
    (whole,) = _processes(_contrastive, 1, folder)
    rows: list[Row] = [(f"contrastive, {ROWS} rows, one process", _bytes(whole["peak"]), "", True)]
    for ranks in RANKS:
        parts = _processes(_contrastive, ranks, folder)
        peak = max(part["peak"] for part in parts)
        figure = f"{_bytes(peak)}, {peak / whole['peak']:.3f} of one process's"
        what = f"contrastive, {ROWS // ranks} rows on each of {ranks}"
        target = f"below one {ROWS} x {ROWS} matrix, {_bytes(WHOLE_LOGITS)}"
        rows.append((what, figure, target, peak < WHOLE_LOGITS))
        found = [torch.cat([part["gradients"][i] for part in parts]) / ranks for i in (0, 1)]
        found.append(sum(part["gradients"][2] for part in parts) / ranks)
        far = max((a - b).abs().max().item() for a, b in zip(found, whole["gradients"], strict=True))
        rows.append((f"its gradients on {ranks}, farthest", f"{far:.1e}", f"below {FAR:.0e}", far < FAR))
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
        before.append(_forget_peak())
        contrastive_loss(Contrast(*leaves, positive), alone=False).backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    before: list[int] = []
    loss(2 * ranks, slice(2 * rank, 2 * rank + 2))  # wakes threads and connections
    gradients = loss(ROWS, slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks))
    return {"peak": _resident("VmHWM") - before[-1], "gradients": gradients}


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = contrastive(Path(folder))
    print(f"{os.cpu_count()} CPU cores, Python {sys.version.split()[0]}, torch {version('torch')}\n")
    print("| what | measured | target | met |\n|---|---|---|---|")
    for what, figure, target, met in rows:
        print(f"| {what} | {figure} | {target} | {('yes' if met else 'NO') if target else ''} |")
    sys.exit(not all(met for *_, met in rows))


if __name__ == "__main__":
    main()
