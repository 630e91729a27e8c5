"""Registers FLAVA with MMF: importing this module is all it takes, and ``compat`` does so when MMF starts."""

from mmf_flava.data import imagenet, pmd, processors, text_corpus, unmasked
from mmf_flava.losses import contrastive, masked_modeling, matching, regression
from mmf_flava.models import classification, pretraining
from mmf_flava.training import finetuning, trainer

__all__ = [
    "classification",
    "contrastive",
    "finetuning",
    "imagenet",
    "masked_modeling",
    "matching",
    "pmd",
    "pretraining",
    "processors",
    "regression",
    "text_corpus",
    "trainer",
    "unmasked",
]
