"""Tests of the finetuning processors for images and texts."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmf_flava.data.processors import FlavaImageProcessor
from mmf_flava.data.unmasked import FlavaImageTransform, FlavaTokensProcessor
from mmf_flava.errors import UserError


def test_image_transform_equals_pretraining_evaluation():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    params = {"image_size": 8, "patch_size": 4, "mask": {"target": 2, "min_block": 1}}
    item = {"image": image, "rng": np.random.default_rng(0), "train": False}
    expected = FlavaImageProcessor(params)(item)["image"]
    transform = FlavaImageTransform({"image_size": 8})
    assert transform(image).shape == (3, 8, 8)
    torch.testing.assert_close(transform(image), expected)
    assert transform({"image": image})["image"].equal(transform(image))


def test_mean_and_std_are_configurable():
    grey = Image.new("L", (5, 5), 51)
    image = FlavaImageTransform({"image_size": 2, "mean": [0.2, 0.1, 0.0], "std": [1.0, 0.1, 0.2]})(grey)
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))


def test_invalid_size_raises_an_error():
    with pytest.raises(UserError, match=r"flava_image_transform\.image_size: must be at least 1, got 0"):
        FlavaImageTransform({"image_size": 0})


@pytest.fixture
def tokens(tmp_path):
    """A function ``tokens(max_length)`` that builds a processor: [PAD] is 0, [CLS] 2, [SEP] 3, a to f are 5 to 10."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]) + "\n")
    return lambda max_length: FlavaTokensProcessor({"tokenizer": str(tmp_path), "max_length": max_length})


def ids(sample):
    assert sample["input_mask"].dtype == torch.int64
    return sample["input_ids"][sample["input_mask"] == 1].tolist()


def test_text_is_padded_to_max_length(tokens):
    sample = tokens(6)({"text": "a b"})
    assert sample["input_ids"].tolist() == [2, 5, 6, 3, 0, 0]
    assert sample["input_mask"].tolist() == [True] * 4 + [False] * 2
    assert sample["text"] == "a b"
    assert tokens(6).get_vocab_size() == 11


def test_unknown_params_raise_an_error(tmp_path):
    with pytest.raises(UserError, match=r"'max_seq_length' is not a key of flava_tokens\. Did you mean 'max_length'?"):
        FlavaTokensProcessor({"tokenizer": str(tmp_path), "max_seq_length": 128})


def test_first_text_may_be_named_text_a(tokens):
    sample = tokens(7)({"text_a": "a b", "text_b": "c"})
    assert (ids(sample), sample["text"]) == ([2, 5, 6, 3, 7, 3], "a b")


def test_long_text_is_truncated(tokens):
    assert ids(tokens(4)({"text": "a b c d"})) == [2, 5, 6, 3]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a b", "c", [2, 5, 6, 3, 7, 3]),
        ("a b c d e f", "a", [2, 5, 6, 7, 8, 3, 5, 3]),
        ("a", "a b c d e f", [2, 5, 3, 5, 6, 7, 8, 3]),
        ("a b c d e f", "f e d c b a", [2, 5, 6, 7, 3, 10, 9, 3]),
        ("", "a b", [2, 3, 5, 6, 3]),
    ],
)
def test_long_pair_is_truncated_at_the_longer_text(tokens, first, second, expected):
    sample = tokens(8)({"text": first, "text_b": second})
    assert ids(sample) == expected
    own = expected.index(3) + 1  # [CLS] and the first text with its [SEP]
    segments = [0] * own + [1] * (len(expected) - own) + [0] * (8 - len(expected))
    assert sample["segment_ids"].tolist() == segments, "1 on the second text only"
