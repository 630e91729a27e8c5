"""MMF's own trainer as finetuning needs it: one class, ``FinetuningBase``, with a side for each of MMF's lines.

Apart from the rest of the bridge, for MMF's trainers import its datasets, which may be ours.

What both sides offer, besides what MMF's trainer has on both lines (``config``, ``device``, ``model``, ``optimizer``,
``metrics``, ``num_updates``, ``run_type``; ``load``, ``load_metrics``, ``train`` and ``inference``):

* ``trained``: updates done, which ``num_updates`` tells no more once the best weights are back. Training ends at
  ``training.max_updates`` exactly, the last validation counts for the best weights, and these are there at the end.
* ``dataset(split)``: the one dataset of ``train``, ``val`` or ``test``; None where the recipe lists none.
* ``on_logged(meter, update)``: a hook, called on every process when MMF has logged a meter of training or validation.
* ``evaluate_split(split)``: evaluates it, logs the figures and returns MMF's meter of them.
* ``predict_split(split)``: writes MMF's file of predictions.
"""

import importlib
from typing import Any

from mmf_flava.compat.mmf_api import LINE

_line = importlib.import_module(f"mmf_flava.compat.mmf_api.{LINE}_trainer")

FinetuningBase: Any = _line.FinetuningBase
# what training.trainer calls MMF's trainer itself
MMF_TRAINER: str = _line.MMF_TRAINER

__all__ = ["MMF_TRAINER", "FinetuningBase"]
