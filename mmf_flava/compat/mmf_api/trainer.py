"""``FinetuningBase``: MMF's own trainer with the same interface for both versions of MMF.

A separate module, because MMF's trainers import its datasets, which may be ours.

In addition to the attributes that MMF's trainer has in both versions (``config``, ``device``, ``model``,
``optimizer``, ``metrics``, ``num_updates``, ``run_type``; ``load``, ``load_metrics``, ``train`` and ``inference``):

* ``trained``: completed updates, which ``num_updates`` is not after the best weights are restored. Training ends at
  ``training.max_updates`` exactly, the last validation can be the best, and training ends with the best weights.
* ``dataset(split)``: the single dataset of ``train``, ``val`` or ``test``; None if the recipe has none.
* ``on_logged(meter, update)``: a hook, called on every process after MMF has logged a meter of training or validation.
* ``evaluate_split(split)``: evaluates the split, logs its metrics and returns MMF's meter with them.
* ``predict_split(split)``: writes MMF's file of predictions.
"""

import importlib
from typing import Any

from mmf_flava.compat.mmf_api import MMF_VERSION

_version = importlib.import_module(f"mmf_flava.compat.mmf_api.{MMF_VERSION}_trainer")

FinetuningBase: Any = _version.FinetuningBase
# the name of MMF's own trainer in training.trainer
MMF_TRAINER: str = _version.MMF_TRAINER

__all__ = ["MMF_TRAINER", "FinetuningBase"]
