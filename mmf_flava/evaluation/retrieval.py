"""Image-text retrieval by the cosine of contrastive embeddings (§4, B.2).

Shapes: N images, M distinct captions, E projection, B batch.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.config.schema import near_miss, positive
from mmf_flava.errors import UserError


def check(config: RetrievalConfig, datasets: Iterable[str]) -> None:
    """Refuses a section that cannot be run.

    Raises:
        UserError: an unknown dataset or a depth below 1.
    """
    if config.dataset not in (names := list(datasets)):
        raise UserError(
            f"evaluation.retrieval.dataset: '{config.dataset}' is not a dataset of this run."
            f"{near_miss(config.dataset, names)}"
        )
    for depth in config.recall_at:
        positive(depth, "evaluation.retrieval.recall_at")


def recall_at(similarity_QG: Tensor, relevant_QG: Tensor, depths: Iterable[int]) -> dict[int, float]:
    """Share of queries with at least one relevant item among their ``k`` best, for each depth k.

    Ties count against the model: an irrelevant item of equal similarity is ranked before a relevant one.

    Args:
        similarity_QG: (queries, gallery) scores.
        relevant_QG: same shape, bool; every query has at least one relevant item.
    """
    best_relevant = similarity_QG.masked_fill(~relevant_QG, -torch.inf).max(1, keepdim=True).values
    rank = ((similarity_QG >= best_relevant) & ~relevant_QG).sum(1)
    return {k: (rank < k).float().mean().item() for k in depths}


@torch.no_grad()
def retrieve(
    model: Any, batches: Iterable[Any], text_processor: Any, config: RetrievalConfig, device: torch.device
) -> dict[str, float]:
    """Recall in both directions over a whole split.

    The gallery of captions holds each distinct caption once. For an image any of its captions counts; for a caption
    any image that carries it does.
    """
    embeddings, captions_of = [], []
    for batch in batches:
        embeddings.append(normalize(model.encode_image(batch["image"].to(device)).float(), dim=-1).cpu())
        captions_of += batch["captions"]
    gallery = sorted({caption for captions in captions_of for caption in captions})
    place = {caption: number for number, caption in enumerate(gallery)}
    relevant = torch.zeros(len(captions_of), len(gallery), dtype=torch.bool)
    for image, captions in enumerate(captions_of):
        relevant[image, [place[caption] for caption in captions]] = True
    similarity = torch.cat(embeddings) @ _embed_texts(model, gallery, text_processor, device).T
    result: dict[str, float] = {"images": len(captions_of), "captions": len(gallery)}
    for k, value in recall_at(similarity, relevant, config.recall_at).items():
        result[f"image_to_text_r{k}"] = value
    for k, value in recall_at(similarity.T, relevant.T, config.recall_at).items():
        result[f"text_to_image_r{k}"] = value
    return result


def _embed_texts(model: Any, texts: list[str], text_processor: Any, device: torch.device, size: int = 256) -> Tensor:
    """(M, E) unit vectors, ``size`` texts at a time."""
    parts = []
    for start in range(0, len(texts), size):
        ids, mask = text_processor.encode(texts[start : start + size])
        parts.append(normalize(model.encode_text(ids.to(device), mask.to(device)).float(), dim=-1).cpu())
    return torch.cat(parts)
