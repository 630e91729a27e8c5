"""Recall by hand, with several captions an image and with ties."""

import pytest
import torch

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.retrieval import check, recall_at, retrieve

VECTORS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}


class Model:
    """Embeds captions by name and images by their first two pixels."""

    def encode_text(self, ids, mask):
        return torch.tensor([VECTORS["abc"[int(i)]] for i in ids[:, 0]])

    def encode_image(self, image):
        return image.flatten(1)[:, :2]


class TextProcessor:
    def encode(self, texts):
        ids = torch.tensor([["abc".index(text)] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


def test_recall_counts_the_best_of_several_relevant_items():
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.1, 0.3]])
    relevant = torch.tensor([[False, True, True], [True, True, False]])
    # first query: the better relevant item is second; second query: its better one is second as well
    assert recall_at(similarity, relevant, [1, 2, 3]) == {1: 0.0, 2: 1.0, 3: 1.0}


def test_ties_count_against_the_model():
    assert recall_at(torch.zeros(1, 3), torch.tensor([[True, False, False]]), [1, 2, 3]) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_retrieval_in_both_directions():
    images = torch.tensor([[1.0, 0.1], [0.1, 1.0]]).view(2, 1, 1, 2)
    batches = [{"image": images, "captions": [["a", "c"], ["b", "c"]]}]
    result = retrieve(Model(), batches, TextProcessor(), RetrievalConfig("pmd", [1]), torch.device("cpu"))
    assert result == {"images": 2, "captions": 3, "image_to_text_r1": 1.0, "text_to_image_r1": 1.0}


def test_a_caption_of_the_other_image_is_a_miss():
    images = torch.tensor([[1.0, 0.0], [1.0, 0.1]]).view(2, 1, 1, 2)  # both look like caption a
    batches = [{"image": images, "captions": [["a"], ["b"]]}]
    result = retrieve(Model(), batches, TextProcessor(), RetrievalConfig("pmd", [1, 2]), torch.device("cpu"))
    assert (result["image_to_text_r1"], result["image_to_text_r2"]) == (0.5, 1.0)


def test_unknown_dataset_is_refused():
    with pytest.raises(UserError, match="Did you mean 'pmd'"):
        check(RetrievalConfig("pmdd"), ["pmd", "imagenet"])
