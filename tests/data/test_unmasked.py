"""What finetuning sees of a picture and of a text."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmf_flava.data.processors import FlavaImageProcessor
from mmf_flava.data.unmasked import FlavaImageTransform, FlavaTokensProcessor
from mmf_flava.errors import UserError


def test_a_picture_is_seen_as_in_evaluations_of_pretraining():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    params = {"image_size": 8, "patch_size": 4, "mask": {"target": 2, "min_block": 1}}
    item = {"image": picture, "rng": np.random.default_rng(0), "train": False}
    expected = FlavaImageProcessor(params)(item)["image"]
    transform = FlavaImageTransform(params)
    assert transform(picture).shape == (3, 8, 8)
    torch.testing.assert_close(transform(picture), expected)
    assert transform({"image": picture})["image"].equal(transform(picture))


def test_mean_and_std_may_be_others():
    grey = Image.new("L", (5, 5), 51)
    image = FlavaImageTransform({"image_size": 2, "mean": [0.2, 0.1, 0.0], "std": [1.0, 0.1, 0.2]})(grey)
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))


def test_a_size_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="image_size is 0"):
        FlavaImageTransform({"image_size": 0})


@pytest.fixture
def tokens(tmp_path):
    """``tokens(max_length)``: [PAD] is 0, [CLS] 2, [SEP] 3, the words a to f are 5 to 10."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]) + "\n")
    return lambda max_length: FlavaTokensProcessor({"tokenizer": str(tmp_path), "max_length": max_length})


def ids(sample):
    assert sample["input_mask"].dtype == torch.bool
    return sample["input_ids"][sample["input_mask"]].tolist()


def test_a_text_is_padded_to_one_length(tokens):
    sample = tokens(6)({"text": "a b"})
    assert sample["input_ids"].tolist() == [2, 5, 6, 3, 0, 0]
    assert sample["input_mask"].tolist() == [True] * 4 + [False] * 2
    assert sample["text"] == "a b"
    assert tokens(6).get_vocab_size() == 11


def test_a_first_text_may_be_called_text_a(tokens):
    sample = tokens(7)({"text_a": "a b", "text_b": "c"})
    assert (ids(sample), sample["text"]) == ([2, 5, 6, 3, 7, 3], "a b")


def test_a_long_text_is_cut(tokens):
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
def test_two_texts_share_the_room(tokens, first, second, expected):
    assert ids(tokens(8)({"text": first, "text_b": second})) == expected
