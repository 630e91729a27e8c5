"""Registers FLAVA with MMF: importing this module is all it takes, and ``compat`` does so when MMF starts."""

from mmf_flava.data import glue, imagenet, pmd, processors, text_corpus, unmasked
from mmf_flava.evaluation import metrics
from mmf_flava.losses import contrastive, masked_modeling, matching, regression
from mmf_flava.models import classification, pretraining
from mmf_flava.training import finetuning, trainer

__all__ = [
    "classification",
    "contrastive",
    "finetuning",
    "glue",
    "imagenet",
    "masked_modeling",
    "matching",
    "metrics",
    "pmd",
    "pretraining",
    "processors",
    "regression",
    "text_corpus",
    "trainer",
    "unmasked",
]
