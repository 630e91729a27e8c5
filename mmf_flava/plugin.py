"""Registers FLAVA with MMF: importing this module is all it takes, and ``compat`` does so when MMF starts."""

from mmf_flava.data import imagenet, pmd, processors, text_corpus
from mmf_flava.evaluation import metrics
from mmf_flava.losses import contrastive, masked_modeling, matching
from mmf_flava.models import pretraining
from mmf_flava.training import trainer

__all__ = [
    "contrastive",
    "imagenet",
    "masked_modeling",
    "matching",
    "metrics",
    "pmd",
    "pretraining",
    "processors",
    "text_corpus",
    "trainer",
]
