"""Re-ranking of the most similar candidates by the match probability of the image-text matching head.

Shapes: N = number of images, M = number of captions, E = projection size, Q = number of queries, K = number of
candidates, B = batch size, P = number of pairs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.evaluation.features import FeatureExtractor, interleave
from mmf_flava.evaluation.gallery import Gallery
from mmf_flava.evaluation.ranking import Tiling, top_candidates
from mmf_flava.processes import gather_objects, rank, world_size


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
        tiling, images_NE = Tiling(self.extractor.device, self.extractor.distributed), self.gallery.images
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
        size, step = len(self.dataset), self.extractor.batch_size
        spans = [range(start, min(start + step, size)) for start in range(0, size, step)]
        spans = spans[rank() :: world_size()] if self.extractor.distributed else spans
        positions_P = self.gallery.positions.numpy()[images_P]
        scores = []
        loader = build_evaluation_loader(self.dataset, step, self.extractor.num_workers, spans)
        for span, batch in zip(spans, loader, strict=True):
            first, last = np.searchsorted(positions_P, [span.start, span.stop])
            rows = positions_P[first:last] - span.start
            scores.append(self._match_batch(batch["image"], rows, captions_P[first:last]))
        return np.concatenate(interleave(gather_objects(scores)) if self.extractor.distributed else scores)

    def _match_batch(self, images_BCHW: Tensor, rows_P: np.ndarray, captions_P: np.ndarray) -> np.ndarray:
        """Return the (P,) match probabilities of P image-caption pairs whose images are in one batch.

        Args:
            rows_P: index of each pair's image in the batch.
            captions_P: index of each pair's caption in the gallery.
        """
        device, step = self.extractor.device, self.extractor.batch_size
        states = self.model.image_states(images_BCHW.to(device))
        scores = [np.empty(0, np.float32)]
        for start in range(0, len(rows_P), step):
            texts = [self.gallery.captions[n] for n in captions_P[start : start + step]]
            ids, mask = self.dataset.text_processor.encode(texts)
            rows = torch.from_numpy(rows_P[start : start + step]).to(device)
            probabilities = self.model.match(states[rows], ids.to(device), mask.to(device))
            scores.append(probabilities.float().cpu().numpy())
        return np.concatenate(scores)


def _reranked(scores_QK: np.ndarray, positive_QK: np.ndarray, similarity_ranks_Q: np.ndarray) -> Tensor:
    best = np.where(positive_QK, scores_QK, -np.inf).max(1, keepdims=True)
    ranks = ((scores_QK >= best) & ~positive_QK).sum(1)
    return torch.from_numpy(np.where(positive_QK.any(1), ranks, similarity_ranks_Q))
