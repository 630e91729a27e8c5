"""Classification by prompts on vectors one can check by hand."""

import pytest
import torch

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.zero_shot import check, classify, text_classifier

CPU = torch.device("cpu")
PROMPTS = {"a cat": [2.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.0, -3.0], "the dog": [0.0, -1.0]}
CONFIG = ZeroShotConfig("pmd", ["cat", "dog"], ["a {}", "the {}"])


class Model:
    def encode_text(self, ids, mask):
        return torch.tensor([list(PROMPTS.values())[int(i)] for i in ids[:, 0]])

    def encode_image(self, image):
        return image.flatten(1)


class TextProcessor:
    def encode(self, texts):
        ids = torch.tensor([[list(PROMPTS).index(text)] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


def batch(vectors, targets):
    return {
        "image": torch.tensor(vectors),
        "targets": torch.tensor(targets),
        "sample_id": [f"s{i}" for i in range(len(targets))],
    }


def test_a_class_is_the_normalised_mean_of_normalised_prompts():
    half = 0.5**0.5
    assert torch.allclose(
        text_classifier(Model(), TextProcessor(), CONFIG, CPU), torch.tensor([[half, half], [0.0, -1.0]])
    )


def test_accuracy_confusion_and_rows():
    batches = [batch([[1.0, 1.0], [0.0, -2.0]], [0, 0]), batch([[0.1, -1.0], [5.0, 5.0]], [1, -1])]
    result = classify(Model(), batches, TextProcessor(), CONFIG, CPU)
    assert result.accuracy == pytest.approx(2 / 3)  # the fourth image has no label
    assert result.confusion.tolist() == [[1, 1], [0, 1]]
    assert [row["prediction"] for row in result.rows()] == ["cat", "dog", "dog"]
    assert result.summary()["chance"] == 0.5


def test_a_label_without_a_class_name_is_refused():
    with pytest.raises(UserError, match="label 2"):
        classify(Model(), [batch([[1.0, 0.0]], [2])], TextProcessor(), CONFIG, CPU)


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
