"""AUROC of a split that two processes share is that of the split."""

import pytest
import torch
from mmf.common.registry import registry
from mmf.modules.metrics import Metrics

from mmf_flava.training import whole_metrics
from mmf_flava.training.whole_metrics import Fields, WholeMetrics


def report(scores, targets):
    return Fields(scores=scores, targets=targets, dataset_name="toy", dataset_type="val")


def test_shares_are_put_together_in_their_order(monkeypatch):
    scores = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [0.0, 0.0]])
    targets = torch.tensor([1, 1, 0, 1, 0])
    dealt = [[0, 2, 4], [1, 3, 0]]  # five samples to two processes; the first is repeated
    shares = [(scores[share], targets[share]) for share in dealt]
    other = iter(shares[1])
    monkeypatch.setattr(whole_metrics, "get_world_size", lambda: 2)
    monkeypatch.setattr(whole_metrics, "gather_tensor", lambda tensor: torch.stack([tensor, next(other)]))
    found = WholeMetrics(["roc_auc"], {"val": 5})(report(*shares[0]), None)  # scores, then targets, in every process
    whole = Metrics(["roc_auc"])(report(scores, targets), report(scores, targets))
    assert found == whole and whole["val/toy/roc_auc"].item() == pytest.approx(5 / 6)
    assert registry.get("metrics.toy.val") == whole


def test_one_process_has_mmfs_own():
    given = report(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    assert WholeMetrics(["accuracy"], {})(given, given)["val/toy/accuracy"].item() == 0.5
