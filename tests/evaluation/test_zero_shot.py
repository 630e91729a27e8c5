"""Classification by prompts on vectors one can check by hand."""

import pytest
import torch

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.zero_shot import check, classify, text_classifier
from tests.evaluation import toys
from tests.evaluation.toys import CPU, Vectors, extraction

PROMPTS = {"a cat": [2.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.0, -3.0], "the dog": [0.0, -1.0]}
CONFIG = ZeroShotConfig("pmd", ["cat", "dog"], ["a {}", "the {}"])


class Model(toys.Model):
    def encode_text(self, ids, mask):
        return torch.tensor([list(PROMPTS.values())[int(i)] for i in ids[:, 0]])


class TextProcessor:
    def encode(self, texts):
        ids = torch.tensor([[list(PROMPTS).index(text)] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


def classified(vectors, targets, **options):
    data = Vectors(vectors, targets, text_processor=TextProcessor(), dataset_name="pmd")
    return classify(Model(), data, CONFIG, extraction(**options))


def test_a_class_is_the_normalised_mean_of_normalised_prompts():
    half = 0.5**0.5
    assert torch.allclose(
        text_classifier(Model(), TextProcessor(), CONFIG, CPU), torch.tensor([[half, half], [0.0, -1.0]])
    )


def test_accuracy_confusion_and_rows():
    # the fourth image has no label
    result = classified([[1.0, 1.0], [0.0, -2.0], [0.1, -1.0], [5.0, 5.0]], [0, 0, 1, -1])
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.top(2) == 1.0
    assert result.confusion.tolist() == [[1, 1], [0, 1]]
    assert [row["prediction"] for row in result.rows()] == ["cat", "dog", "dog"]
    summary = result.summary()
    assert summary["chance"] == 0.5
    assert summary["mean_per_class"] == 0.75
    assert summary["per_class"] == [
        {"class": "cat", "count": 2, "accuracy": 0.5},
        {"class": "dog", "count": 1, "accuracy": 1.0},
    ]


def test_classes_without_a_name_are_refused_with_the_first_images():
    with pytest.raises(UserError, match="names 2 classes, labels 0 to 1, but of dataset 'pmd' s1 has label 2, s2 has"):
        classified([[1.0, 0.0]] * 5, [1, 2, 7, 3, 4])


def test_no_label_at_all_is_refused():
    with pytest.raises(UserError, match="no image of dataset 'pmd' has a label"):
        classified([[1.0, 0.0]], [-1])


def test_text_classifier_is_made_once(tmp_path, monkeypatch):
    first = classified([[1.0, 1.0]], [0], folder=tmp_path)
    monkeypatch.setattr(Model, "encode_text", None)
    again = classified([[1.0, 1.0]], [0], folder=tmp_path)
    assert torch.equal(first.confidences, again.confidences)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (ZeroShotConfig("pmdd", ["x"], ["{}"]), "Did you mean 'pmd'"),
        (ZeroShotConfig("pmd", [], ["{}"]), "classes"),
        (ZeroShotConfig("pmd", ["x"], ["a digit"]), "a digit"),
    ],
)
def test_sections_that_cannot_run_are_refused(config, word):
    with pytest.raises(UserError, match=word):
        check(config, ["pmd"])
