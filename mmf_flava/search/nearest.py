"""Exact search of the nearest embeddings.

Shapes: Q queries, N rows of a block, E width of the embeddings, K neighbours.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmf_flava.errors import UserError

QUERIES = 1024  # queries that are compared with a block at the same time


class Neighbour(NamedTuple):
    """A row of an index and its similarity with a query, the dot product of the embeddings."""

    row: int
    score: float


def find_nearest(
    queries_QE: np.ndarray,
    read_blocks: Callable[[], Iterable[np.ndarray]],
    count: int,
    device: torch.device | str = "cpu",
) -> Iterator[list[Neighbour]]:
    """Yield the ``count`` rows with the highest dot product of each query, best first; equal ones in order of rows.

    The memory does not depend on the number of queries and rows: queries are compared in batches of ``QUERIES``, each
    with one block of rows after another. Rows whose embeddings are not finite are not found.

    Args:
        read_blocks: returns the rows in blocks of shape (N, E); called once for every batch of queries.

    Raises:
        UserError: the width of the rows differs from that of the queries.
    """
    for first in range(0, len(queries_QE), QUERIES):
        queries = torch.from_numpy(queries_QE[first : first + QUERIES]).to(device)
        yield from _search_blocks(queries, read_blocks(), count)


def _search_blocks(queries_QE: Tensor, blocks: Iterable[np.ndarray], count: int) -> Iterator[list[Neighbour]]:
    size, device = len(queries_QE), queries_QE.device
    scores_QK = torch.empty(size, 0, device=device)
    rows_QK = torch.empty(size, 0, dtype=torch.long, device=device)
    first = 0
    for block_NE in blocks:
        if block_NE.shape[1] != queries_QE.shape[1]:
            raise UserError(
                f"The embeddings have {block_NE.shape[1]} values, but those of the weights {queries_QE.shape[1]}. Set "
                "--weights to the weights that the index was written with."
            )
        scores_QN = queries_QE @ torch.from_numpy(block_NE).to(device).T
        scores_QN = scores_QN.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        rows_QN = torch.arange(first, first + len(block_NE), device=device).expand(size, -1)
        scores, rows = torch.cat((scores_QK, scores_QN), 1), torch.cat((rows_QK, rows_QN), 1)
        scores_QK, order = scores.topk(min(count, scores.shape[1]))
        rows_QK = rows.gather(1, order)
        first += len(block_NE)
    for scores, rows in zip(scores_QK.tolist(), rows_QK.tolist(), strict=True):
        found = [Neighbour(row, score) for row, score in zip(rows, scores, strict=True) if score > -torch.inf]
        yield sorted(found, key=lambda neighbour: (-neighbour.score, neighbour.row))
