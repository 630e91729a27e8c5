"""Retrieval ranks compared with NumPy and torchmetrics: several captions per image, ties, and tile sizes."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics.retrieval import RetrievalHitRate

from mmf_flava.evaluation import ranking
from mmf_flava.evaluation.ranking import Tiling, positive_ranks, recall_at, round_to_grid, top_candidates
from mmf_flava.evaluation.rounds import Rounds
from tests.evaluation.toys import CPU

DEPTHS = [1, 5, 10]
IMAGES = 300
TILING = Tiling(CPU, Rounds(1))


def gallery(steps: int):
    """Return image embeddings, caption embeddings, the image index of each caption, and the similarities.

    Each image has 1 to 6 captions. Embeddings are multiples of 1 / ``steps``, so few steps give many ties.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(-steps, steps + 1, (IMAGES, 6)) / steps
    owners = np.repeat(np.arange(IMAGES), rng.integers(1, 7, IMAGES))
    captions = np.round((images[owners] + rng.normal(0, 0.4, (len(owners), 6))) * steps) / steps
    images, captions = (round_to_grid(torch.tensor(array / 8, dtype=torch.float32)) for array in (images, captions))
    return images, captions, owners, images.double().numpy() @ captions.double().numpy().T


def pairs_of(owners):
    return torch.tensor(np.stack([owners, np.arange(len(owners))], axis=1))


def reference_ranks(similarity, positives):
    """Return for each query the number of negatives that score at least as high as its best positive."""
    return [int((row[~mask] >= row[mask].max()).sum()) for row, mask in zip(similarity, positives, strict=True)]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(ranking, "TILE_ROWS", 64)
    monkeypatch.setattr(ranking, "TILE_COLUMNS", 100)


@pytest.mark.parametrize("steps", [4, 100_000])
def test_ranks_equal_numpy_with_several_captions_and_ties(small_tiles, steps):
    images, captions, owners, similarity = gallery(steps)
    positives = owners == np.arange(IMAGES)[:, None]
    image_ranks, caption_ranks = positive_ranks(images, captions, pairs_of(owners), TILING)
    assert image_ranks.tolist() == reference_ranks(similarity, positives)
    assert caption_ranks.tolist() == reference_ranks(similarity.T, positives.T)
    ties = (np.diff(np.sort(similarity, axis=1)) == 0).mean()
    assert ties > 0.5 if steps == 4 else ties < 0.01
    assert 0 < recall_at(image_ranks, [1])[1] < recall_at(image_ranks, [10])[10] < 1


def test_recall_equals_torchmetrics_without_ties(small_tiles):
    """torchmetrics orders ties arbitrarily."""
    images, captions, owners, similarity = gallery(100_000)
    positives = owners == np.arange(IMAGES)[:, None]
    assert len(np.unique(similarity)) == similarity.size
    directions = ((similarity, positives), (similarity.T, positives.T))
    ranks = positive_ranks(images, captions, pairs_of(owners), TILING)
    for ranks_Q, (scores, target) in zip(ranks, directions, strict=True):
        query = torch.arange(len(scores))[:, None].expand(scores.shape).flatten()
        for k, recall in recall_at(ranks_Q, DEPTHS).items():
            expected = RetrievalHitRate(top_k=k)(torch.tensor(scores).flatten(), torch.tensor(target).flatten(), query)
            assert recall == pytest.approx(expected.item(), abs=1e-6)  # torchmetrics averages in float32


def test_ties_count_against_the_model():
    """All similarities are equal; the first image has two captions, the second has one."""
    images, captions = torch.ones(2, 1), torch.ones(3, 1)
    image_ranks, caption_ranks = positive_ranks(images, captions, torch.tensor([[0, 0], [0, 1], [1, 2]]), TILING)
    assert (image_ranks.tolist(), caption_ranks.tolist()) == ([1, 2], [1, 1, 1])


def test_similarities_are_exact_for_any_tile_size():
    rng = torch.Generator().manual_seed(0)
    images, captions = (round_to_grid(normalize(torch.randn(40, 768, generator=rng), dim=-1)) for _ in range(2))
    rows, columns = (
        [[int(value * 2**26) for value in row] for row in matrix.tolist()] for matrix in (images, captions)
    )
    exact = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in rows[:2]]
    for step in (1, 7, 40):
        tiles = [images[:2].double() @ captions[n : n + step].double().T for n in range(0, 40, step)]
        assert [[int(value * 2**52) for value in row] for row in torch.cat(tiles, dim=1).tolist()] == exact


def test_candidates_equal_a_stable_sort(small_tiles):
    images, captions, _, similarity = gallery(4)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :7]
    assert top_candidates(images, captions, 7, TILING).tolist() == expected.tolist()
    assert top_candidates(images[:2], captions[:3], 7, TILING).shape == (2, 3)
