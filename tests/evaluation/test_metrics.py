"""GLUE metrics compared with their formulas, on complete splits and for undefined inputs."""

import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from mmf.common.report import Report
from mmf.common.sample import SampleList
from mmf.modules import metrics as mmf_metrics
from mmf.modules.metrics import Metrics
from scipy.stats import rankdata

from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.errors import UserError
from mmf_flava.evaluation import metrics  # registers them


def metric(name, scores, targets):
    return registry.get_metric_class(name)()({"targets": targets}, {"scores": scores})


def logits(classes, count=2):
    """Return (N, C) scores with the maximum at ``classes``."""
    return torch.nn.functional.one_hot(torch.as_tensor(classes), count).float() * 3 - 1


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 200)
    return np.where(rng.random(200) < 0.7, true, 1 - true), true


@pytest.fixture
def values():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 11, 200) / 2  # STS-B's steps of 0.5, which cause ties
    return true + rng.normal(0, 2, 200), true


def counts(predicted, true):
    return [int(((predicted == p) & (true == t)).sum()) for p, t in ((1, 1), (0, 0), (1, 0), (0, 1))]


class OnGpu(torch.Tensor):
    """A tensor that claims to be on another device."""

    device = torch.device("meta")


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "accuracy_f1"])
def test_values_are_on_the_device_of_the_scores(name, classes):
    """MMF stacks the values of all metrics to reduce them over processes, e.g. with those of its own accuracy."""
    scores = torch.tensor(classes[0]).double() if name in ("pearson", "spearman") else logits(classes[0])
    value = metric(name, scores.as_subclass(OnGpu), torch.tensor(classes[1]))
    assert value.device == torch.device("meta") and value.shape == ()


def test_matthews_equals_its_formula(classes):
    tp, tn, fp, fn = counts(*classes)
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert metric("matthews", logits(classes[0]), torch.tensor(classes[1])) == pytest.approx(expected, abs=1e-12)
    assert 0.2 < expected < 0.3


def test_accuracy_f1_is_the_mean_of_both(classes):
    tp, tn, fp, fn = counts(*classes)
    expected = ((tp + tn) / 200 + 2 * tp / (2 * tp + fp + fn)) / 2
    assert metric("accuracy_f1", logits(classes[0]), torch.tensor(classes[1])) == pytest.approx(expected, abs=1e-12)
    assert metric("accuracy_f1", logits([0, 0]), torch.tensor([0, 0])) == 0.5


def test_pearson_and_spearman_equal_their_definitions(values):
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
def test_mmf_computes_metrics_over_a_complete_split(classes, values, name):
    """MMF's evaluation concatenates the reports of the batches before it calls the metric."""
    regression = name in ("pearson", "spearman")
    scores = torch.tensor(values[0])[:, None] if regression else logits(classes[0])
    targets = torch.tensor(values[1] if regression else classes[1])
    batches = list(zip(scores.split(32), targets.split(32), strict=True))
    metrics_, complete, first = Metrics([name]), report(scores, targets), report(*batches[0])
    name_on_main = "accumulate_tensor_fields_and_loss"
    accumulate = getattr(first, name_on_main if MMF_VERSION == "main" else "accumulate_tensor_fields")
    for batch in batches[1:]:
        accumulate(report(*batch), ["scores", "targets"])
    by_batch = torch.stack([value for r in (report(*batch) for batch in batches) for value in metrics_(r, r).values()])
    (accumulated,), (expected,) = metrics_(first, first).values(), metrics_(complete, complete).values()
    assert accumulated.item() == expected.item() == pytest.approx(float(metric(name, scores, targets)), abs=1e-6)
    assert abs(by_batch.mean() - expected) > 1e-5  # the mean over the batches would be wrong


@pytest.mark.parametrize(
    ("name", "scores", "targets", "words"),
    [
        ("matthews", logits([1, 1, 1]), torch.tensor([0, 1, 1]), "3 predictions"),
        ("matthews", logits([0, 1, 1]), torch.tensor([1, 1, 1]), "3 targets"),
        ("pearson", torch.ones(3, 1), torch.tensor([0.0, 1.0, 2.0]), "3 predictions"),
        ("spearman", torch.tensor([[0.0], [1.0]]), torch.ones(2), "2 targets"),
        ("pearson", torch.ones(1, 1), torch.ones(1), "1 predictions"),
    ],
)
def test_undefined_metric_returns_0_with_a_warning(name, scores, targets, words):
    with pytest.warns(UserWarning, match=f"{name} is undefined because all {words} are equal"):
        assert metric(name, scores, targets) == 0.0


def test_roc_auc_ranks_confident_samples():
    """The fp32 softmax of class 1 is 1 for all these samples, so that MMF's metric is below 1."""
    margins = torch.tensor([20.0, 40.0, 60.0, 80.0])
    scores = torch.stack([-margins, margins], dim=1)
    for name in ("roc_auc", "macro_roc_auc"):
        assert metric(name, scores, torch.tensor([0, 0, 1, 1])) == 1
    assert metric("roc_auc", scores, torch.tensor([0, 1, 0, 1])) == 0.75


@pytest.mark.parametrize(("name", "replaced"), [("roc_auc", "ROC_AUC"), ("micro_roc_auc", "MicroROC_AUC")])
def test_roc_auc_equals_mmf_for_scores_in_range(name, replaced):
    generator = torch.Generator().manual_seed(0)
    scores, classes = torch.randn(60, 4, generator=generator), torch.arange(60) % 4
    several = torch.rand(60, 4, generator=generator) < 0.4  # several labels per sample
    for targets in (classes, several.long()):
        expected = getattr(mmf_metrics, replaced)()({"targets": targets}, {"scores": scores})
        assert metric(name, scores, targets) == pytest.approx(expected.item(), abs=1e-6)


def test_roc_auc_of_one_class_is_0_with_a_warning():
    with pytest.warns(UserWarning, match="roc_auc is undefined because all or none of 3 samples are of class 0"):
        assert metric("roc_auc", logits([0, 1, 1]), torch.tensor([1, 1, 1])) == 0


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "accuracy_f1", "roc_auc"])
def test_nan_scores_raise(name):
    scores = torch.full((4, 1) if name in ("pearson", "spearman") else (4, 2), float("nan"))
    with pytest.raises(UserError, match=f"{name}: {scores.numel()} of {scores.numel()} scores are NaN"):
        metric(name, scores, torch.tensor([0, 1, 0, 1]))


def test_wrong_kind_of_metric_raises():
    with pytest.raises(UserError, match="For regression use pearson or spearman"):
        metric("matthews", torch.ones(4, 1), torch.ones(4))
    with pytest.raises(UserError, match=r"targets of shape \(N,\) or \(N, C\)"):
        metric("roc_auc", torch.ones(4, 1), torch.ones(4))
    with pytest.raises(UserError, match="For classification use accuracy, f1 or matthews"):
        metric("pearson", torch.ones(4, 2), torch.ones(4))


def test_plugin_registers_the_metrics():
    from mmf_flava import plugin

    assert plugin.metrics is metrics
