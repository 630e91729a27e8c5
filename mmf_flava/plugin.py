"""Registers FLAVA with MMF: importing this module is all it takes, and ``compat`` does so when MMF starts."""

from mmf_flava.data import image_classification, imagenet, karpathy, pmd, processors, text_corpus
from mmf_flava.losses import contrastive, masked_modeling, matching
from mmf_flava.models import pretraining
from mmf_flava.training import trainer

__all__ = [
    "contrastive",
    "image_classification",
    "imagenet",
    "karpathy",
    "masked_modeling",
    "matching",
    "pmd",
    "pretraining",
    "processors",
    "text_corpus",
    "trainer",
]
