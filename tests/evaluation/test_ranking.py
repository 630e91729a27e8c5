"""Ranks against plain numpy and torchmetrics: several captions an image, ties, tiles of any size."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics.retrieval import RetrievalHitRate

from mmf_flava.evaluation import ranking
from mmf_flava.evaluation.ranking import Tiles, candidates, on_grid, ranks, recall_at
from tests.evaluation.toys import CPU

DEPTHS = [1, 5, 10]
IMAGES = 300
TILES = Tiles(CPU)


def gallery(steps: int):
    """Images with 1 to 6 captions each, in multiples of 1/steps: few steps, many ties. Vectors, owners, similarity."""
    rng = np.random.default_rng(0)
    images = rng.integers(-steps, steps + 1, (IMAGES, 6)) / steps
    owners = np.repeat(np.arange(IMAGES), rng.integers(1, 7, IMAGES))
    captions = np.round((images[owners] + rng.normal(0, 0.4, (len(owners), 6))) * steps) / steps
    images, captions = (on_grid(torch.tensor(part / 8, dtype=torch.float32)) for part in (images, captions))
    return images, captions, owners, images.double().numpy() @ captions.double().numpy().T


def pairs_of(owners):
    return torch.tensor(np.stack([owners, np.arange(len(owners))], axis=1))


def ranks_by_hand(similarity, relevant):
    """The stated rule, query by query: what does not belong and is as similar comes before the best that belongs."""
    return [int((row[~own] >= row[own].max()).sum()) for row, own in zip(similarity, relevant, strict=True)]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(ranking, "ROWS", 64)
    monkeypatch.setattr(ranking, "COLUMNS", 100)


@pytest.mark.parametrize("steps", [4, 100_000])
def test_ranks_equal_plain_numpy_with_several_captions_and_ties(small_tiles, steps):
    images, captions, owners, similarity = gallery(steps)
    relevant = owners == np.arange(IMAGES)[:, None]
    of_images, of_captions = ranks(images, captions, pairs_of(owners), TILES)
    assert of_images.tolist() == ranks_by_hand(similarity, relevant)
    assert of_captions.tolist() == ranks_by_hand(similarity.T, relevant.T)
    ties = (np.diff(np.sort(similarity, axis=1)) == 0).mean()
    assert ties > 0.5 if steps == 4 else ties < 0.01
    assert 0 < recall_at(of_images, [1])[1] < recall_at(of_images, [10])[10] < 1


def test_recall_equals_torchmetrics_where_nothing_ties(small_tiles):
    """Where something ties, torchmetrics sorts it without a rule, and what it counts is a matter of chance."""
    images, captions, owners, similarity = gallery(100_000)
    relevant = owners == np.arange(IMAGES)[:, None]
    assert len(np.unique(similarity)) == similarity.size
    directions = ((similarity, relevant), (similarity.T, relevant.T))
    for found, (scores, target) in zip(ranks(images, captions, pairs_of(owners), TILES), directions, strict=True):
        query = torch.arange(len(scores))[:, None].expand(scores.shape).flatten()
        for k, recall in recall_at(found, DEPTHS).items():
            expected = RetrievalHitRate(top_k=k)(torch.tensor(scores).flatten(), torch.tensor(target).flatten(), query)
            assert recall == pytest.approx(expected.item(), abs=1e-6)  # a float32 mean of the same hits


def test_ties_count_against_the_model():
    """Everything is equal: two captions belong to the first image, one to the second."""
    images, captions = torch.ones(2, 1), torch.ones(3, 1)
    of_images, of_captions = ranks(images, captions, torch.tensor([[0, 0], [0, 1], [1, 2]]), TILES)
    assert (of_images.tolist(), of_captions.tolist()) == ([1, 2], [1, 1, 1])


def test_a_similarity_is_exact_in_tiles_of_any_size():
    rng = torch.Generator().manual_seed(0)
    images, captions = (on_grid(normalize(torch.randn(40, 768, generator=rng), dim=-1)) for _ in range(2))
    rows, columns = ([[int(value * 2**26) for value in row] for row in part.tolist()] for part in (images, captions))
    exact = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in rows[:2]]
    for step in (1, 7, 40):
        tiles = [images[:2].double() @ captions[n : n + step].double().T for n in range(0, 40, step)]
        assert [[int(value * 2**52) for value in row] for row in torch.cat(tiles, dim=1).tolist()] == exact


def test_candidates_are_the_first_of_a_stable_sort(small_tiles):
    images, captions, _, similarity = gallery(4)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :7]
    assert candidates(images, captions, 7, TILES).tolist() == expected.tolist()
    assert candidates(images[:2], captions[:3], 7, TILES).shape == (2, 3)
