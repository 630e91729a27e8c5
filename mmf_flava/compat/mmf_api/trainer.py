"""``FinetuningBase``: MMF's trainer with the same interface for both versions of MMF.

This is a separate module, because MMF's trainers import MMF's datasets, and mmf_flava's datasets import ``mmf_api``.

``FinetuningBase`` has the attributes that MMF's trainer has in both versions (``config``, ``device``, ``model``,
``optimizer``, ``metrics``, ``num_updates``, ``run_type``; ``load``, ``load_metrics``, ``train`` and ``inference``) and
these attributes:

* ``trained``: number of completed updates. ``num_updates`` is reset when the best weights are restored. Training ends
  after exactly ``training.max_updates`` updates. After training, the model has the weights with the best validation
  score, including the validation at the end of training.
* ``dataset(split)``: the dataset of the split ``train``, ``val`` or ``test``; None if there is no such split.
* ``on_logged(meter, update)``: hook, called on every process after MMF has logged a training or validation meter.
* ``evaluate_split(split)``: evaluates the split, logs its metrics and returns MMF's meter.
* ``predict_split(split)``: writes MMF's predictions file.
"""

import importlib
from typing import Any

from mmf_flava.compat.mmf_api import MMF_VERSION

_version = importlib.import_module(f"mmf_flava.compat.mmf_api.{MMF_VERSION}_trainer")

FinetuningBase: Any = _version.FinetuningBase
# value of training.trainer that selects MMF's trainer
MMF_TRAINER: str = _version.MMF_TRAINER

__all__ = ["MMF_TRAINER", "FinetuningBase"]
