"""Image-text retrieval by the cosine of contrastive embeddings, and by the matching head (§4, B.2).

Shapes: N images, M captions, E projection.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.config.schema import near_miss, positive
from mmf_flava.errors import UserError
from mmf_flava.evaluation.features import Extraction, by_turns
from mmf_flava.evaluation.gallery import Gallery
from mmf_flava.evaluation.ranking import Tiles, on_grid, ranks, recall_at
from mmf_flava.evaluation.reranking import Reranker
from mmf_flava.ranks import gather_objects, rank, world_size

TEXTS = 256  # embedded at a time


def check(config: RetrievalConfig, datasets: Iterable[str]) -> None:
    """Refuses a section that cannot be run.

    Raises:
        UserError: an unknown dataset, no depth or one below 1, or a negative number of candidates.
    """
    if config.dataset not in (names := list(datasets)):
        raise UserError(
            f"evaluation.retrieval.dataset: '{config.dataset}' is not a dataset of this run."
            f"{near_miss(config.dataset, names)}"
        )
    if not config.recall_at:
        raise UserError("evaluation.retrieval.recall_at is empty; list depths such as [1, 5, 10].")
    for depth in config.recall_at:
        positive(depth, "evaluation.retrieval.recall_at")
    if config.rerank < 0:
        raise UserError(f"evaluation.retrieval.rerank is {config.rerank}; it must be 0 or a number of candidates.")


def retrieve(model: Any, dataset: Any, config: RetrievalConfig, extraction: Extraction) -> dict[str, float]:
    """Recall in both directions over the whole of ``dataset``; where processes share the work, each gets the result.

    For an image any of its captions counts; for a caption the image, or any that carries it where equal captions are
    merged. Ties count against the model. ``reranked_...`` is the recall after the matching head has put the
    ``rerank`` most similar into its own order.

    Raises:
        UserError: images without captions, or a model without the head that ``rerank`` needs.
    """
    if config.rerank and "itm" not in getattr(model, "heads", {}):
        raise UserError(
            "evaluation.retrieval.rerank asks the matching head, and this model has none: list flava_itm under "
            "model_config.flava.losses, or set rerank to 0."
        )
    gallery = Gallery.of(extraction.whole(model, dataset, "contrastive"), config.merge_equal_captions)
    texts, place = gallery.distinct
    captions = on_grid(embed_texts(model, texts, dataset.text_processor, extraction))[torch.tensor(place)]
    tiles = Tiles(extraction.device, extraction.shared)
    found = ranks(gallery.images, captions, gallery.pairs, tiles)
    result: dict[str, float] = {"images": len(gallery.images), "captions": len(captions)}
    result |= _recalls(found, config.recall_at)
    if config.rerank:
        reranked = Reranker(model, dataset, gallery, extraction).ranks(captions, config.rerank, found)
        result |= {f"reranked_{name}": value for name, value in _recalls(reranked, config.recall_at).items()}
    return result


def _recalls(both: tuple[Tensor, Tensor], depths: list[int]) -> dict[str, float]:
    directions = zip(("image_to_text", "text_to_image"), both, strict=True)
    return {f"{name}_r{k}": value for name, found in directions for k, value in recall_at(found, depths).items()}


@torch.no_grad()
def embed_texts(model: Any, texts: list[str], text_processor: Any, extraction: Extraction) -> Tensor:
    """(M, E) unit vectors, ``TEXTS`` texts at a time; shared as the extraction says."""
    starts = range(0, len(texts), TEXTS)
    parts = []
    for start in starts[rank() :: world_size()] if extraction.shared else starts:
        ids, mask = text_processor.encode(texts[start : start + TEXTS])
        vectors = model.encode_text(ids.to(extraction.device), mask.to(extraction.device))
        parts.append(normalize(vectors.float(), dim=-1).cpu())
    return torch.cat(by_turns(gather_objects(parts)) if extraction.shared else parts)
