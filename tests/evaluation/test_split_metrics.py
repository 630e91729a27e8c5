"""Two and three gloo processes that share a split against one that has it all."""

import json

import pytest
import torch
import torch.distributed as dist
from mmf.common.report import Report
from torch import multiprocessing
from torch.utils.data import DistributedSampler

from mmf_flava.evaluation import metrics  # noqa: F401  registers them
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


def figure(name, scores, targets):
    return SplitMetrics([name], {"val": SIZE})(report(scores, targets), report(scores, targets))[
        f"val/toy/{name}"
    ].item()


def one_of_many(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=ranks, rank=rank)
    sampler = DistributedSampler(range(SIZE), shuffle=True)  # as MMF deals out a validation split
    mine = list(sampler)
    figures = {name: figure(name, *(field[mine] for field in split(name))) for name in NAMES}
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(figures, file)
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 3])
def test_figures_are_those_of_one_process(tmp_path, ranks):
    multiprocessing.spawn(one_of_many, (ranks, str(tmp_path)), nprocs=ranks)
    expected = {name: figure(name, *split(name)) for name in NAMES}
    for rank in range(ranks):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected, rel=1e-6)


def test_the_mean_of_parts_would_be_another_figure():
    scores, targets = split("f1")
    parts = [figure("matthews", scores[half], targets[half]) for half in (slice(0, 16), slice(16, None))]
    assert abs(sum(parts) / 2 - figure("matthews", scores, targets)) > 1e-3
