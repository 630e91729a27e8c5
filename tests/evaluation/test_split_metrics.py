"""Metrics of two and three gloo processes equal those of a single process."""

import json

import pytest
import torch
import torch.distributed as dist
from mmf.common.report import Report
from torch import multiprocessing
from torch.utils.data import DistributedSampler

from mmf_flava.evaluation import metrics  # noqa: F401  registers the metrics
from mmf_flava.evaluation.split_metrics import SplitMetrics

NAMES = ["accuracy", "f1", "matthews", "roc_auc", "pearson"]
SIZE = 31


def report(scores, targets):
    return Report([("scores", scores), ("targets", targets), ("dataset_name", "toy"), ("dataset_type", "val")])


def split(name):
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(SIZE, 2, generator=generator), torch.arange(SIZE) % 2
    scores[:, 1] += targets
    return (scores[:, 1:], targets.float()) if name == "pearson" else (scores, targets)


def compute_metric(name, scores, targets):
    return SplitMetrics([name], {"val": SIZE})(report(scores, targets), report(scores, targets))[
        f"val/toy/{name}"
    ].item()


def run_process(rank: int, processes: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=processes, rank=rank)
    indices = list(DistributedSampler(range(SIZE), shuffle=True))  # MMF's sampler for a validation split
    values = {name: compute_metric(name, *(field[indices] for field in split(name))) for name in NAMES}
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(values, file)
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_metrics_equal_a_single_process(tmp_path, processes):
    multiprocessing.spawn(run_process, (processes, str(tmp_path)), nprocs=processes)
    expected = {name: compute_metric(name, *split(name)) for name in NAMES}
    for rank in range(processes):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected, rel=1e-6)


def test_mean_over_processes_would_differ():
    scores, targets = split("f1")
    values = [compute_metric("matthews", scores[half], targets[half]) for half in (slice(0, 16), slice(16, None))]
    assert abs(sum(values) / 2 - compute_metric("matthews", scores, targets)) > 1e-3
