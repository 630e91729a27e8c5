"""Image-text retrieval by contrastive similarity and by the matching head (FLAVA paper, §4 and B.2).

The contrastive similarity is the cosine similarity of image and text embeddings.

Shapes: N = number of images, M = number of captions, E = projection size.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmf_flava.config.flava_trainers import check_evaluated_dataset
from mmf_flava.config.run import RetrievalConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.features import FeatureExtractor, interleave
from mmf_flava.evaluation.gallery import Gallery
from mmf_flava.evaluation.ranking import Tiling, positive_ranks, recall_at, round_to_grid
from mmf_flava.evaluation.reranking import Reranker
from mmf_flava.processes import gather_objects

TEXT_BATCH_SIZE = 256


def check_config(config: RetrievalConfig, datasets: Iterable[str]) -> None:
    """Check the recipe section ``evaluation.retrieval``.

    Raises:
        UserError: the section names an unknown dataset.
    """
    check_evaluated_dataset("retrieval", config.dataset, datasets)


def retrieve(model: Any, dataset: Any, config: RetrievalConfig, extractor: FeatureExtractor) -> dict[str, float]:
    """Compute recall@k in both directions over the entire ``dataset``; all processes return the same result.

    The positives of an image are its captions. The positive of a caption is its image, or every image with that caption
    if equal captions are merged. Ties count against the model. Keys that start with ``reranked_`` are the recalls after
    the matching head has re-ranked the ``rerank`` most similar candidates.

    Raises:
        IncompleteGalleryError: the dataset has bad records.
        UserError: an image has no caption, or ``rerank`` is set but the model has no matching head.
    """
    if config.rerank and "itm" not in getattr(model, "heads", {}):
        raise UserError(
            "evaluation.retrieval.rerank: the model has no image-text matching head. Add flava_itm to "
            "model_config.flava.losses, or set rerank to 0."
        )
    gallery = Gallery.from_features(extractor.extract(model, dataset, "contrastive"), config.merge_equal_captions)
    texts, indices = gallery.unique_captions()
    captions = round_to_grid(embed_texts(model, texts, dataset.text_processor, extractor))[torch.tensor(indices)]
    tiling = Tiling(extractor.device, extractor.rounds)
    ranks = positive_ranks(gallery.images, captions, gallery.pairs, tiling)
    result: dict[str, float] = {"images": len(gallery.images), "captions": len(captions)}
    result |= _recalls(ranks, config.recall_at)
    if config.rerank:
        reranked = Reranker(model, dataset, gallery, extractor).positive_ranks(captions, config.rerank, ranks)
        result |= {f"reranked_{name}": value for name, value in _recalls(reranked, config.recall_at).items()}
    return result


def _recalls(ranks: tuple[Tensor, Tensor], depths: list[int]) -> dict[str, float]:
    directions = zip(("image_to_text", "text_to_image"), ranks, strict=True)
    return {f"{name}_r{k}": value for name, ranks_Q in directions for k, value in recall_at(ranks_Q, depths).items()}


@torch.no_grad()
def embed_texts(model: Any, texts: list[str], text_processor: Any, extractor: FeatureExtractor) -> Tensor:
    """Return the embeddings of M texts, (M, projection size), normalised to unit length.

    The batches of texts are dealt to the processes.
    """
    rounds, batches = extractor.rounds, []
    for span, is_own in rounds.deal(rounds.spans(len(texts), TEXT_BATCH_SIZE)):
        if span is None:
            continue
        ids, mask = text_processor.encode(texts[span.start : span.stop])
        embeddings = model.encode_text(ids.to(extractor.device), mask.to(extractor.device))
        if is_own:
            batches.append(normalize(embeddings.float(), dim=-1).cpu())
    return torch.cat(interleave(gather_objects(batches)))
