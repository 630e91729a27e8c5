"""Exact ranks of image-text retrieval in both directions, computed in tiles and distributed over processes.

Shapes: N = number of images, M = number of captions, P = number of positive pairs, E = projection size,
Q = number of queries, G = gallery size, K = number of candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmf_flava.evaluation.features import interleave
from mmf_flava.evaluation.rounds import Rounds
from mmf_flava.processes import gather_objects

GRID = 2.0**26
TILE_ROWS, TILE_COLUMNS = 256, 8192  # 16 MiB of similarities


@dataclass
class Tiling:
    """Settings of the tiled computation of similarities.

    device: device of the computation.
    rounds: deals blocks of rows to the processes.
    """

    device: torch.device
    rounds: Rounds

    def local_rows(self, size: int) -> Iterator[slice]:
        """Split ``size`` rows into blocks and yield the blocks that this process computes."""
        for rows, is_own in self.rounds.deal(_blocks(size, TILE_ROWS)):
            if rows is not None and is_own:
                yield rows

    def load_rows(self, embeddings: Tensor, rows: slice | Tensor) -> Tensor:
        """Return rows of ``embeddings`` on the device, in float64."""
        return embeddings[rows].to(self.device).double()


def round_to_grid(embeddings_NE: Tensor) -> Tensor:
    """Round the components of unit embeddings to multiples of 2^-26; the error is within float32's rounding error.

    Products of two components are then multiples of 2^-52, and their sums are below 2 by Cauchy-Schwarz, so float64
    represents all of them exactly. Similarities are therefore identical for any tile size, device and number of
    processes, and equal embeddings have equal similarities.
    """
    return (embeddings_NE * GRID).round() / GRID


def positive_ranks(images_NE: Tensor, captions_ME: Tensor, pairs_P2: Tensor, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Return the rank of the best positive of each query: the number of negatives with at least its similarity.

    Ties count against the model. Each similarity is computed once for both directions and is not stored. All
    processes must call this function, and all return the same result.

    Args:
        images_NE, captions_ME: embeddings rounded by ``round_to_grid``.
        pairs_P2: image index and caption index of the positive pairs, without duplicates; every image and every caption
            must occur.

    Returns:
        (N,) ranks with images as queries, and (M,) ranks with captions as queries.
    """
    image, caption = pairs_P2.T
    positives = _pair_similarities(images_NE, captions_ME, pairs_P2, tiling)
    best_of_image = _max_by_index(positives, image, len(images_NE))
    best_of_caption = _max_by_index(positives, caption, len(captions_ME))
    image_ranks = torch.zeros(len(images_NE), dtype=torch.long)
    caption_ranks = torch.zeros(len(captions_ME), dtype=torch.long)
    for rows in tiling.local_rows(len(images_NE)):
        queries, best = tiling.load_rows(images_NE, rows), tiling.load_rows(best_of_image, rows)[:, None]
        for columns in _blocks(len(captions_ME), TILE_COLUMNS):
            similarity = queries @ tiling.load_rows(captions_ME, columns).T
            image_ranks[rows] += (similarity >= best).sum(1).cpu()
            caption_ranks[columns] += (similarity >= tiling.load_rows(best_of_caption, columns)).sum(0).cpu()
    gathered = gather_objects((image_ranks, caption_ranks))
    image_ranks, caption_ranks = (torch.stack(counts).sum(0) for counts in zip(*gathered, strict=True))
    # subtract the positives that are as similar as the best positive, because they were counted too
    image_ranks -= torch.bincount(image[positives == best_of_image[image]], minlength=len(images_NE))
    caption_ranks -= torch.bincount(caption[positives == best_of_caption[caption]], minlength=len(captions_ME))
    return image_ranks, caption_ranks


def top_candidates(queries_QE: Tensor, gallery_GE: Tensor, count: int, tiling: Tiling) -> Tensor:
    """Return the gallery indices of the K most similar entries of each of Q queries, (Q, K), most similar first.

    K is the smaller of ``count`` and the gallery size. Ties are in gallery order. The result is exact. The computation
    is tiled and distributed as in ``positive_ranks``.
    """
    results = []
    for rows in tiling.local_rows(len(queries_QE)):
        queries = tiling.load_rows(queries_QE, rows)
        best = queries.new_empty(len(queries), 0)
        indices = best.long()
        for columns in _blocks(len(gallery_GE), TILE_COLUMNS):
            tile_indices = torch.arange(columns.start, columns.stop, device=tiling.device).expand(len(queries), -1)
            best = torch.cat([best, queries @ tiling.load_rows(gallery_GE, columns).T], dim=1)
            indices = torch.cat([indices, tile_indices], dim=1)
            order = best.sort(dim=1, descending=True, stable=True).indices[:, :count]
            best, indices = best.gather(1, order), indices.gather(1, order)
        results.append(indices.cpu())
    return torch.cat(interleave(gather_objects(results)))


def recall_at(ranks_Q: Tensor, depths: list[int]) -> dict[int, float]:
    """Return recall@k for each k in ``depths``: the fraction of queries whose best positive is among the top k."""
    return {k: int((ranks_Q < k).sum()) / len(ranks_Q) for k in depths}


def _pair_similarities(images_NE: Tensor, captions_ME: Tensor, pairs_P2: Tensor, tiling: Tiling) -> Tensor:
    """Return the (P,) similarities of P image-caption pairs, bitwise equal to the similarities computed in tiles."""
    similarities = torch.empty(len(pairs_P2), dtype=torch.double)
    for rows in _blocks(len(pairs_P2), TILE_COLUMNS):
        image, caption = pairs_P2[rows].T
        products = tiling.load_rows(images_NE, image) * tiling.load_rows(captions_ME, caption)
        similarities[rows] = products.sum(1).cpu()
    return similarities


def _max_by_index(values_P: Tensor, indices_P: Tensor, size: int) -> Tensor:
    """Return (size,) maxima: for each index, the maximum of the values that have this index."""
    return torch.full((size,), -torch.inf, dtype=torch.double).scatter_reduce(0, indices_P, values_P, "amax")


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
