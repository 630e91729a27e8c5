"""The most similar of a gallery in the order of the matching head: how likely it finds that a pair belongs together.

Shapes: N images, M captions, E projection, Q queries, K candidates, B images of a batch, P pairs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmf_flava.data.sampling import evaluation_loader
from mmf_flava.evaluation.features import Extraction, by_turns
from mmf_flava.evaluation.gallery import Gallery
from mmf_flava.evaluation.ranking import Tiles, candidates
from mmf_flava.ranks import gather_objects, rank, world_size


class Reranker:
    """Scores clean pairs, each once for both directions; an image is read and encoded once for all of its pairs."""

    def __init__(self, model: Any, dataset: Any, gallery: Gallery, extraction: Extraction) -> None:
        self.model, self.dataset, self.gallery, self.extraction = model, dataset, gallery, extraction

    def ranks(self, captions_ME: Tensor, count: int, before: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(N,) of images and (M,) of captions, as ``ranking.ranks``: ``before`` where none of a query's candidates
        belongs to it, as these then stay where they are; else its place in the head's order, ties against it."""
        tiles, images_NE = Tiles(self.extraction.device, self.extraction.shared), self.gallery.images
        of_images = candidates(images_NE, captions_ME, count, tiles).numpy()
        of_captions = candidates(captions_ME, images_NE, count, tiles).numpy()
        # a pair is one number, so that both directions share their scores
        size = len(captions_ME)
        codes = (
            np.arange(len(of_images))[:, None] * size + of_images,
            of_captions * size + np.arange(len(of_captions))[:, None],
        )
        pairs = np.unique(np.concatenate([code.ravel() for code in codes]))
        scores = self._scores(pairs // size, pairs % size)
        image, caption = self.gallery.pairs.numpy().T
        return tuple(  # type: ignore[return-value]
            _ranks(scores[np.searchsorted(pairs, code)], np.isin(code, image * size + caption), was.numpy())
            for code, was in zip(codes, before, strict=True)
        )

    @torch.no_grad()
    def _scores(self, images_P: np.ndarray, captions_P: np.ndarray) -> np.ndarray:
        """(P,) probabilities of pairs that are sorted by image; batches are the same for any number of processes."""
        size, step = len(self.dataset), self.extraction.batch_size
        spans = [range(start, min(start + step, size)) for start in range(0, size, step)]
        spans = spans[rank() :: world_size()] if self.extraction.shared else spans
        positions_P = self.gallery.positions.numpy()[images_P]
        parts = []
        loader = evaluation_loader(self.dataset, step, self.extraction.num_workers, spans)
        for span, batch in zip(spans, loader, strict=True):
            first, last = np.searchsorted(positions_P, [span.start, span.stop])
            rows = positions_P[first:last] - span.start
            parts.append(self._match(batch["image"], rows, captions_P[first:last]))
        return np.concatenate(by_turns(gather_objects(parts)) if self.extraction.shared else parts)

    def _match(self, images_BCHW: Tensor, rows_P: np.ndarray, captions_P: np.ndarray) -> np.ndarray:
        """(P,) probabilities of pairs of an image of the batch and a caption of the gallery, a batch at a time."""
        device, step = self.extraction.device, self.extraction.batch_size
        states = self.model.image_states(images_BCHW.to(device))
        scores = [np.empty(0, np.float32)]
        for start in range(0, len(rows_P), step):
            texts = [self.gallery.captions[n] for n in captions_P[start : start + step]]
            ids, mask = self.dataset.text_processor.encode(texts)
            rows = torch.from_numpy(rows_P[start : start + step]).to(device)
            found = self.model.match(states[rows], ids.to(device), mask.to(device))
            scores.append(found.float().cpu().numpy())
        return np.concatenate(scores)


def _ranks(scores_QK: np.ndarray, relevant_QK: np.ndarray, before_Q: np.ndarray) -> Tensor:
    best = np.where(relevant_QK, scores_QK, -np.inf).max(1, keepdims=True)
    place = ((scores_QK >= best) & ~relevant_QK).sum(1)
    return torch.from_numpy(np.where(relevant_QK.any(1), place, before_Q))
