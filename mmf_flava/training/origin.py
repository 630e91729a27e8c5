"""Where the weights of a run come from: its own checkpoint, a named one, or other people's weights."""

from pathlib import Path
from typing import Any

from torch import nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import CheckpointConfig
from mmf_flava.errors import UserError
from mmf_flava.ranks import gather_objects, rank
from mmf_flava.training.checkpoint import load_model, start
from mmf_flava.training.checkpoint_folder import CheckpointFolder, demand_whole


def load_weights(model: nn.Module, config: Any, own: CheckpointFolder, wishes: CheckpointConfig) -> Path | None:
    """Loads the weights that the recipe names into ``model``; every process must call it.

    Args:
        config: the whole recipe.
        own: the checkpoints of this run's folder.
        wishes: our own part of the recipe's ``checkpoint``.

    Returns:
        The checkpoint that training is to go on from, or None where it begins with update 0.

    Raises:
        UserError: no such weights, damaged ones, or weights that do not fit.
    """
    given = config.checkpoint
    path = _newest(own, given.resume_best) if given.resume else None
    ours = path is not None
    weights_only = given.resume_file and given.resume_pretrained
    if path is None and given.resume_file and not weights_only:
        path = Path(given.resume_file).absolute()
        if not path.exists():
            raise UserError(
                f"checkpoint.resume_file: there is no {path}; weights from the hub, from an address or with other "
                "names than ours need checkpoint.resume_pretrained: true."
            )
        demand_whole(path)
    if path is None:
        if given.resume:
            mmf_api.log(f"checkpoint.resume: no checkpoint in {own.folder} yet, starting anew.")
        whole = given.resume_file if weights_only else None
        for line in start(model, whole, wishes, config.env.cache_dir):
            mmf_api.log(line)
        return None
    load_model(path, model)
    mmf_api.log(f"Loaded the model from {path}")
    return path if path.is_dir() and not given.reset.all and (ours or not given.resume_pretrained) else None


def _newest(own: CheckpointFolder, best: bool) -> Path | None:
    """The first process looks, and all take the same."""
    path = None
    if rank() == 0:
        path = own.best() if best else own.latest()
    return gather_objects(path)[0]
