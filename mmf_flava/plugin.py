"""Registration of all components of mmf_flava with MMF, on import. ``compat`` imports this module when MMF starts."""

from mmf_flava.data import (
    glue,
    image_classification,
    image_text_classification,
    imagenet,
    karpathy,
    mmf_entries,
    pmd,
    processors,
    text_corpus,
    unmasked,
)
from mmf_flava.evaluation import metrics
from mmf_flava.losses import contrastive, distillation, masked_modeling, matching, regression, weighted
from mmf_flava.models import classification, pretraining
from mmf_flava.models.dino import pretraining as dino_pretraining
from mmf_flava.training import cosine_schedule, trainer

__all__ = [
    "classification",
    "contrastive",
    "cosine_schedule",
    "dino_pretraining",
    "distillation",
    "glue",
    "image_classification",
    "image_text_classification",
    "imagenet",
    "karpathy",
    "masked_modeling",
    "matching",
    "metrics",
    "mmf_entries",
    "pmd",
    "pretraining",
    "processors",
    "regression",
    "text_corpus",
    "trainer",
    "unmasked",
    "weighted",
]
