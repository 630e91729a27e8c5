"""GLUE's metrics against formulas written out, over whole splits, and where they are not defined."""

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from mmf.common.report import Report
from mmf.common.sample import SampleList
from mmf.modules.metrics import Metrics
from scipy.stats import rankdata

from mmf_flava.compat.mmf_api import LINE
from mmf_flava.errors import UserError
from mmf_flava.evaluation import metrics  # registers them


def metric(name, scores, targets):
    return registry.get_metric_class(name)()({"targets": targets}, {"scores": scores})


def logits(classes, count=2):
    """(N, C) scores whose largest is that of ``classes``."""
    return torch.nn.functional.one_hot(torch.as_tensor(classes), count).float() * 3 - 1


@pytest.fixture
def classes():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 2, 200)
    return np.where(draw.random(200) < 0.7, true, 1 - true), true


@pytest.fixture
def values():
    draw = np.random.default_rng(1)
    true = draw.integers(0, 11, 200) / 2  # STS-B's steps: ties
    return true + draw.normal(0, 2, 200), true


def counts(predicted, true):
    return [int(((predicted == p) & (true == t)).sum()) for p, t in ((1, 1), (0, 0), (1, 0), (0, 1))]


def test_matthews_of_the_confusion_matrix(classes):
    tp, tn, fp, fn = counts(*classes)
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert metric("matthews", logits(classes[0]), torch.tensor(classes[1])) == pytest.approx(expected, abs=1e-12)
    assert 0.2 < expected < 0.3


def test_the_mean_of_accuracy_and_f1(classes):
    tp, tn, fp, fn = counts(*classes)
    expected = ((tp + tn) / 200 + 2 * tp / (2 * tp + fp + fn)) / 2
    assert metric("accuracy_f1", logits(classes[0]), torch.tensor(classes[1])) == pytest.approx(expected, abs=1e-12)
    assert metric("accuracy_f1", logits([0, 0]), torch.tensor([0, 0])) == 0.5


def test_correlations_of_values_and_of_ranks(values):
    scores, targets = (torch.tensor(value, dtype=torch.float32) for value in values)
    pearson = np.corrcoef(scores.double(), targets)[0, 1]
    spearman = np.corrcoef(rankdata(scores), rankdata(targets))[0, 1]
    assert metric("pearson", scores[:, None], targets) == pytest.approx(pearson, abs=1e-9)
    assert metric("spearman", scores[:, None], targets) == pytest.approx(spearman, abs=1e-9)
    assert metric("spearman", scores.exp(), targets) == pytest.approx(spearman, abs=1e-9)
    assert abs(pearson - spearman) > 1e-4


def report(scores, targets):
    batch = SampleList({"targets": targets})
    batch.dataset_name, batch.dataset_type = "glue", "val"
    return Report(batch, {"scores": scores, "losses": {}})


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "accuracy_f1", "f1"])
def test_mmf_computes_them_over_a_whole_split(classes, values, name):
    """As MMF's evaluation does: reports of batches are concatenated, and then comes the metric."""
    regression = name in ("pearson", "spearman")
    scores = torch.tensor(values[0])[:, None] if regression else logits(classes[0])
    targets = torch.tensor(values[1] if regression else classes[1])
    parts = list(zip(scores.split(32), targets.split(32), strict=True))
    computed, whole, first = Metrics([name]), report(scores, targets), report(*parts[0])
    name_on_main = "accumulate_tensor_fields_and_loss"
    accumulate = getattr(first, name_on_main if LINE == "main" else "accumulate_tensor_fields")
    for part in parts[1:]:
        accumulate(report(*part), ["scores", "targets"])
    by_batch = torch.stack([value for r in (report(*part) for part in parts) for value in computed(r, r).values()])
    (found,), (expected,) = computed(first, first).values(), computed(whole, whole).values()
    assert found.item() == expected.item() == pytest.approx(float(metric(name, scores, targets)), abs=1e-6)
    assert abs(by_batch.mean() - expected) > 1e-5  # so the mean of the batches would have been wrong


@pytest.mark.parametrize(
    ("name", "scores", "targets", "what"),
    [
        ("matthews", logits([1, 1, 1]), torch.tensor([0, 1, 1]), "3 predictions"),
        ("matthews", logits([0, 1, 1]), torch.tensor([1, 1, 1]), "3 targets"),
        ("pearson", torch.ones(3, 1), torch.tensor([0.0, 1.0, 2.0]), "3 predictions"),
        ("spearman", torch.tensor([[0.0], [1.0]]), torch.ones(2), "2 targets"),
        ("pearson", torch.ones(1, 1), torch.ones(1), "1 predictions"),
    ],
)
def test_what_is_not_defined_counts_as_0_and_is_said(name, scores, targets, what):
    with pytest.warns(UserWarning, match=f"{name} is not defined, as all {what} are equal"):
        assert metric(name, scores, targets) == 0.0


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "accuracy_f1"])
def test_a_model_that_diverged_is_named(name):
    scores = torch.full((4, 1) if name in ("pearson", "spearman") else (4, 2), float("nan"))
    with pytest.raises(UserError, match=f"{name}: {scores.numel()} of {scores.numel()} scores are NaN"):
        metric(name, scores, torch.tensor([0, 1, 0, 1]))


def test_a_metric_of_the_other_kind_is_refused():
    with pytest.raises(UserError, match="for regression there are pearson and spearman"):
        metric("matthews", torch.ones(4, 1), torch.ones(4))
    with pytest.raises(UserError, match="for classes there are accuracy, f1 and matthews"):
        metric("pearson", torch.ones(4, 2), torch.ones(4))


def test_they_are_there_when_mmf_starts():
    from mmf_flava import plugin

    assert plugin.metrics is metrics
