"""Ranks in both directions of a gallery of images and captions: exact, in tiles, shared out over processes.

Shapes: N images, M captions, P pairs that belong together, E projection, Q queries, G gallery, K candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmf_flava.evaluation.features import by_turns
from mmf_flava.ranks import gather_objects, rank, world_size

GRID = 2.0**26
ROWS, COLUMNS = 256, 8192  # of a tile: 16 MiB of similarities


@dataclass
class Tiles:
    """Where tiles are computed, and whether all processes share their rows (else each computes all)."""

    device: torch.device
    shared: bool = False

    def own_rows(self, size: int) -> list[slice]:
        """This process's blocks of ``size`` rows."""
        blocks = _blocks(size, ROWS)
        return blocks[rank() :: world_size()] if self.shared else blocks

    def take(self, vectors: Tensor, rows: slice | Tensor) -> Tensor:
        """These rows in float64."""
        return vectors[rows].to(self.device).double()


def on_grid(vectors_NE: Tensor) -> Tensor:
    """Unit vectors whose components are rounded to multiples of 2^-26, which is no worse than float32's own errors.

    Products of two components are then multiples of 2^-52, and sums of them stay below 2 by Cauchy-Schwarz: float64
    holds every one of them exactly. So a similarity is one number in tiles of any size, on any device and any number
    of processes, and equal vectors tie.
    """
    return (vectors_NE * GRID).round() / GRID


def ranks(images_NE: Tensor, captions_ME: Tensor, pairs_P2: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """How many that do not belong to a query come before the best that does: (N,) of images, (M,) of captions.

    Ties count against the model: what does not belong and is as similar comes before. Each similarity is computed once
    for both directions, and forgotten with its tile. ``tiles.shared``: all processes call this, and get the same.

    Args:
        images_NE, captions_ME: vectors of ``on_grid``.
        pairs_P2: numbers of an image and a caption that belong together, each pair once; no image and no caption is
            without.
    """
    image, caption = pairs_P2.T
    own = _similarities(images_NE, captions_ME, pairs_P2, tiles)
    best_of_image, best_of_caption = _largest(own, image, len(images_NE)), _largest(own, caption, len(captions_ME))
    before_image = torch.zeros(len(images_NE), dtype=torch.long)
    before_caption = torch.zeros(len(captions_ME), dtype=torch.long)
    for rows in tiles.own_rows(len(images_NE)):
        queries, least = tiles.take(images_NE, rows), tiles.take(best_of_image, rows)[:, None]
        for columns in _blocks(len(captions_ME), COLUMNS):
            similarity = queries @ tiles.take(captions_ME, columns).T
            before_image[rows] += (similarity >= least).sum(1).cpu()
            before_caption[columns] += (similarity >= tiles.take(best_of_caption, columns)).sum(0).cpu()
    if tiles.shared:
        parts = gather_objects((before_image, before_caption))
        before_image, before_caption = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
    # what belongs to a query was counted too, where it is as similar as the best
    before_image -= torch.bincount(image[own == best_of_image[image]], minlength=len(images_NE))
    before_caption -= torch.bincount(caption[own == best_of_caption[caption]], minlength=len(captions_ME))
    return before_image, before_caption


def candidates(queries_QE: Tensor, gallery_GE: Tensor, count: int, tiles: Tiles) -> Tensor:
    """(Q, K) numbers of the most similar, the most similar first; of equal ones the first in the gallery.

    K is ``count``, or G where the gallery is smaller. Exact, bounded and shared as ``ranks``.
    """
    parts = []
    for rows in tiles.own_rows(len(queries_QE)):
        queries = tiles.take(queries_QE, rows)
        best = queries.new_empty(len(queries), 0)
        numbers = best.long()
        for columns in _blocks(len(gallery_GE), COLUMNS):
            found = torch.arange(columns.start, columns.stop, device=tiles.device).expand(len(queries), -1)
            best = torch.cat([best, queries @ tiles.take(gallery_GE, columns).T], dim=1)
            numbers = torch.cat([numbers, found], dim=1)
            order = best.sort(dim=1, descending=True, stable=True).indices[:, :count]
            best, numbers = best.gather(1, order), numbers.gather(1, order)
        parts.append(numbers.cpu())
    return torch.cat(by_turns(gather_objects(parts)) if tiles.shared else parts)


def recall_at(ranks_Q: Tensor, depths: list[int]) -> dict[int, float]:
    """Share of queries whose rank is below k, for each depth k: the best that belongs is among the k first."""
    return {k: int((ranks_Q < k).sum()) / len(ranks_Q) for k in depths}


def _similarities(images_NE: Tensor, captions_ME: Tensor, pairs_P2: Tensor, tiles: Tiles) -> Tensor:
    """(P,) of the pairs, equal to the bit to those of a tile."""
    found = torch.empty(len(pairs_P2), dtype=torch.double)
    for rows in _blocks(len(pairs_P2), COLUMNS):
        image, caption = pairs_P2[rows].T
        found[rows] = (tiles.take(images_NE, image) * tiles.take(captions_ME, caption)).sum(1).cpu()
    return found


def _largest(values_P: Tensor, numbers_P: Tensor, size: int) -> Tensor:
    """(size,) the largest value of each number."""
    return torch.full((size,), -torch.inf, dtype=torch.double).scatter_reduce(0, numbers_P, values_P, "amax")


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
