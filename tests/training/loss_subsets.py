"""Training of a small FLAVA with each subset of the losses, on one process and on two with fsdp.

After every update, parameters without a gradient must have the same weights and moments as before, to the bit, and all
others those of one process.
"""

import copy
import itertools
from typing import Any

import torch
from torch import Tensor

from mmf_flava.config.model import LOSSES
from tests.training.toys import batch, toy, updater

SUBSETS = [subset for size in range(1, 7) for subset in itertools.combinations(LOSSES, size)]
KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")
UPDATES = 5

Records = list[dict[str, Any]]


def train_subset(
    losses: tuple[str, ...], rows: slice = slice(None), precision: str = "fp32", sharding: str = "none"
) -> Records:
    """Train with the kinds of batches in turn.

    The epsilon of AdamW is large, so that it does not amplify rounding errors of small gradients.

    Returns:
        the state before training and after every update: ``weights`` and ``moments`` by name, on the first process
        only, and the names of the parameters without a gradient in the update, ``unused``.
    """
    options = {"clip": 1.0, "params": {"eps": 1e-3}, "precision": precision, "sharding": sharding}
    trained = updater(toy(losses=losses), **options)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
    names = [trained.engine.names[weight] for weight in trained.engine.weights]

    def record(unused: list[str]) -> dict[str, Any]:
        moments = {names[index]: entry for index, entry in trained.state_dict()["state"].items()}
        return copy.deepcopy({"weights": trained.model_state(), "moments": moments, "unused": unused})

    records = [record([])]
    for number in range(UPDATES):
        trained.accumulate(batch(KINDS[number % 3], number, rows))
        unused = [name for name, weight in zip(names, trained.engine.weights, strict=True) if weight.grad is None]
        assert trained.step()
        records.append(record(unused))
    return records


def changed_unused(records: Records, unused: list[list[str]]) -> list[str]:
    """Return the parameters whose weights or moments an update changed although they had no gradient.

    Args:
        unused: the names of the parameters without a gradient, for each update.
    """
    return [
        name
        for (before, after), names in zip(itertools.pairwise(records), unused, strict=True)
        for name in names
        if not torch.equal(before["weights"][name], after["weights"][name])
        or not _same(before["moments"].get(name, {}), after["moments"].get(name, {}))
    ]


def largest_differences(found: Records, expected: Records) -> dict[str, float]:
    """Return the largest absolute differences of weights, moments and step counts. Their names must be the same."""
    differences = dict.fromkeys(("weights", "moments", "steps"), 0.0)
    for record, single in zip(found, expected, strict=True):
        assert record["weights"].keys() == single["weights"].keys()
        assert record["moments"].keys() == single["moments"].keys()
        for name, weight in single["weights"].items():
            differences["weights"] = max(differences["weights"], _distance(record["weights"][name], weight))
        for name, entry in single["moments"].items():
            assert record["moments"][name].keys() == entry.keys()
            for key, value in entry.items():
                kind = "steps" if key == "step" else "moments"
                differences[kind] = max(differences[kind], _distance(record["moments"][name][key], value))
    return differences


def _distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
