"""Zero-shot classification on toy embeddings."""

from dataclasses import replace

import pytest
import torch

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.zero_shot import build_classifier, check_config, classify
from tests.evaluation import toys
from tests.evaluation.toys import ToyDataset, extractor

PROMPTS = {"a cat": [2.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.0, -3.0], "the dog": [0.0, -1.0]}
CONFIG = ZeroShotConfig("pmd", ["cat", "dog"], ["a {}", "the {}"])


class PromptModel(toys.ToyModel):
    def encode_text(self, ids, mask):
        return torch.tensor([list(PROMPTS.values())[int(i)] for i in ids[:, 0]])


class TextProcessor:
    def encode(self, texts):
        ids = torch.tensor([[list(PROMPTS).index(text)] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


def classify_toy(embeddings, targets, bad=(), **options):
    data = ToyDataset(embeddings, targets, text_processor=TextProcessor(), dataset_name="pmd", bad=set(bad))
    return classify(PromptModel(), data, CONFIG, extractor(**options))


def test_class_weight_is_the_normalised_mean_of_normalised_prompts():
    half = 0.5**0.5
    assert torch.allclose(
        build_classifier(PromptModel(), TextProcessor(), CONFIG, extractor()), torch.tensor([[half, half], [0.0, -1.0]])
    )


def test_accuracy_confusion_and_prediction_rows():
    # the fourth image has no label
    result = classify_toy([[1.0, 1.0], [0.0, -2.0], [0.1, -1.0], [5.0, 5.0]], [0, 0, 1, -1])
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.top_k_accuracy(2) == 1.0
    assert result.confusion.tolist() == [[1, 1], [0, 1]]
    assert [row["prediction"] for row in result.prediction_rows()] == ["cat", "dog", "dog"]
    summary = result.summary()
    assert summary["chance"] == 0.5
    assert summary["mean_per_class"] == 0.75
    assert summary["per_class"] == [
        {"class": "cat", "count": 2, "accuracy": 0.5},
        {"class": "dog", "count": 1, "accuracy": 1.0},
    ]


def test_captions_with_class_names_are_stated():
    result = classify_toy([[1.0, 1.0], [0.0, -2.0]], [0, 1])
    assert "captions_have_classes" not in result.summary()
    named = replace(result, captions_have_classes=True)
    assert named.summary()["captions_have_classes"] is True


def test_bad_records_are_left_out():
    embeddings, targets = [[1.0, 1.0], [0.0, -2.0], [0.1, -1.0], [5.0, 5.0]], [0, 0, 1, -1]
    result = classify_toy(embeddings, targets, bad=[1])
    assert (result.accuracy, result.bad, result.ids) == (1.0, 1, ["s0", "s2"])
    without = classify_toy([embeddings[0], embeddings[2], embeddings[3]], [0, 1, -1])
    assert result.summary() == without.summary()
    with pytest.raises(UserError, match="no labelled images"):
        classify_toy(embeddings, targets, bad=range(4))


def test_label_without_a_class_raises():
    with pytest.raises(
        UserError, match=r"has 2 classes \(labels 0 to 1\), but dataset 'pmd' has other labels: s1 has label 2, s2 has"
    ):
        classify_toy([[1.0, 0.0]] * 5, [1, 2, 7, 3, 4])


def test_no_labels_raise():
    with pytest.raises(UserError, match="dataset 'pmd' has no labelled images"):
        classify_toy([[1.0, 0.0]], [-1])


def test_classifier_is_cached(tmp_path, monkeypatch):
    first = classify_toy([[1.0, 1.0]], [0], folder=tmp_path)
    monkeypatch.setattr(PromptModel, "encode_text", None)
    second = classify_toy([[1.0, 1.0]], [0], folder=tmp_path)
    assert torch.equal(first.confidences, second.confidences)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (ZeroShotConfig("pmdd", ["x"], ["{}"]), "Did you mean 'pmd'"),
        (ZeroShotConfig("pmd", [], ["{}"]), "classes"),
        (ZeroShotConfig("pmd", ["x"], ["a digit"]), "a digit"),
    ],
)
def test_invalid_section_raises(config, word):
    with pytest.raises(UserError, match=word):
        check_config(config, ["pmd"])


@pytest.mark.parametrize("template", ["{} of {c}", "a {} }", "{0} {}", "a {{}} {!r}"])
def test_templates_with_other_braces_are_errors(template):
    config = ZeroShotConfig("toy", ["cat"], [template])
    with pytest.raises(UserError, match=r"evaluation\.zero_shot\.templates: '.*' has .* outside \{\}"):
        check_config(config, ["toy"])
