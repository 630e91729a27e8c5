"""Re-ranking of the most similar candidates by the match probability of the image-text matching head.

Shapes: N = number of images, M = number of captions, E = projection size, Q = number of queries, K = number of
candidates, B = batch size, P = number of pairs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmf_flava.evaluation.features import FeatureExtractor, interleave
from mmf_flava.evaluation.gallery import Gallery
from mmf_flava.evaluation.ranking import Tiling, top_candidates
from mmf_flava.processes import gather_objects, world_size


class Reranker:
    """Re-ranker of retrieval candidates by the image-text matching head.

    Each image-caption pair is scored once, and each image is encoded once.
    """

    def __init__(self, model: Any, dataset: Any, gallery: Gallery, extractor: FeatureExtractor) -> None:
        self.model, self.dataset, self.gallery, self.extractor = model, dataset, gallery, extractor

    def positive_ranks(
        self, captions_ME: Tensor, count: int, similarity_ranks: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the rank of the best positive of each image, (N,), and caption, (M,), after re-ranking.

        Only the ``count`` most similar candidates of each query are re-ranked.

        Ties count against the model. A query without a positive among these candidates keeps its rank by similarity.

        Args:
            similarity_ranks: result of ``ranking.positive_ranks``.
        """
        tiling, images_NE = Tiling(self.extractor.device, self.extractor.rounds), self.gallery.images
        captions_of_image = top_candidates(images_NE, captions_ME, count, tiling).numpy()
        images_of_caption = top_candidates(captions_ME, images_NE, count, tiling).numpy()
        # encode each pair as one integer, so that both directions use the same scores
        size = len(captions_ME)
        codes = (
            np.arange(len(captions_of_image))[:, None] * size + captions_of_image,
            images_of_caption * size + np.arange(len(images_of_caption))[:, None],
        )
        pairs = np.unique(np.concatenate([code.ravel() for code in codes]))
        scores = self._score_pairs(pairs // size, pairs % size)
        image, caption = self.gallery.pairs.numpy().T
        return tuple(  # type: ignore[return-value]
            _reranked(scores[np.searchsorted(pairs, code)], np.isin(code, image * size + caption), ranks.numpy())
            for code, ranks in zip(codes, similarity_ranks, strict=True)
        )

    @torch.no_grad()
    def _score_pairs(self, images_P: np.ndarray, captions_P: np.ndarray) -> np.ndarray:
        """Return the (P,) match probabilities of P image-caption pairs, which are given as indices and sorted by image.

        The batches do not depend on the number of processes.
        """
        rounds = self.extractor.rounds
        spans = rounds.spans(len(self.dataset))
        loader = rounds.load(self.dataset, rounds.own(spans))
        positions_P = self.gallery.positions.numpy()[images_P]
        # the pairs of batch n are bounds[n] to bounds[n + 1]
        bounds = np.searchsorted(positions_P, [*(span.start for span in spans), len(self.dataset)])
        passes = -(-np.diff(bounds) // rounds.batch_size)
        scores = []
        for step, (n, is_own) in enumerate(rounds.deal(range(len(spans)))):
            if n is None:
                continue
            rows = positions_P[bounds[n] : bounds[n + 1]] - spans[n].start
            count = passes[step * world_size() : (step + 1) * world_size()].max() if rounds.collective else passes[n]
            found = self._match_batch(next(loader)["image"], rows, captions_P[bounds[n] : bounds[n + 1]], int(count))
            if is_own:
                scores.append(found)
        return np.concatenate(interleave(gather_objects(scores)))

    def _match_batch(self, images_BCHW: Tensor, rows_P: np.ndarray, captions_P: np.ndarray, passes: int) -> np.ndarray:
        """Return the (P,) match probabilities of P image-caption pairs whose images are in one batch.

        Args:
            rows_P: index of each pair's image in the batch.
            captions_P: index of each pair's caption in the gallery.
            passes: number of forward passes of the matching head; passes without pairs are run with another pair.
        """
        device, step = self.extractor.device, self.extractor.rounds.batch_size
        states = self.model.image_states(images_BCHW.to(device))
        scores = [np.empty(0, np.float32)]
        for start in range(0, passes * step, step):
            rows, captions = rows_P[start : start + step], captions_P[start : start + step]
            has_pairs = len(rows) > 0
            if not has_pairs:
                rows, captions = np.zeros(1, int), np.zeros(1, int)
            ids, mask = self.dataset.text_processor.encode([self.gallery.captions[n] for n in captions])
            probabilities = self.model.match(states[torch.from_numpy(rows).to(device)], ids.to(device), mask.to(device))
            if has_pairs:
                scores.append(probabilities.float().cpu().numpy())
        return np.concatenate(scores)


def _reranked(scores_QK: np.ndarray, positive_QK: np.ndarray, similarity_ranks_Q: np.ndarray) -> Tensor:
    best = np.where(positive_QK, scores_QK, -np.inf).max(1, keepdims=True)
    ranks = ((scores_QK >= best) & ~positive_QK).sum(1)
    return torch.from_numpy(np.where(positive_QK.any(1), ranks, similarity_ranks_Q))
