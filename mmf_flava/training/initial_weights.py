"""Loading of a run's initial weights from its last checkpoint, ``checkpoint.resume_file`` or pretrained weights."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.model import CoreConfig
from mmf_flava.config.run import CheckpointConfig
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import ATTEMPTS, read_found
from mmf_flava.files.checksums import CorruptFileError, verify_file, verify_folder
from mmf_flava.processes import gather_objects, rank
from mmf_flava.training import model_interface
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.weights.loading import IncompatibleKeys, load_checkpoint_weights, load_weights
from mmf_flava.weights.stock import load_stock_weights
from mmf_flava.weights.weight_files import find_averages, find_checkpoint


def load_initial_weights(
    model: nn.Module,
    config: Any,
    checkpoints: CheckpointFolder,
    checkpoint_config: CheckpointConfig,
    compare: Callable[[Path], None] | None = None,
    averages: bool = False,
) -> Path | None:
    """Load the weights that the config selects into ``model``. Must be called by all processes.

    Args:
        config: the complete MMF config.
        checkpoints: the checkpoints of this run.
        checkpoint_config: the keys that mmf_flava adds to the config section ``checkpoint``.
        compare: called with the checkpoint to resume training from, before its weights are loaded.
        averages: whether to load the averages of ``training.ema`` in the checkpoint.

    Returns:
        The checkpoint to resume training from, or None if training starts at update 0.

    Raises:
        UserError: the weights were not found, are corrupt, or do not fit the model.
    """
    section = config.checkpoint
    path = None
    load = partial(_load_checkpoint, model, compare=compare, averages=averages)
    if section.resume:
        path = load(checkpoints.best if section.resume_best else checkpoints.latest)
    from_this_run = path is not None
    weights_only = section.resume_file and section.resume_pretrained
    if path is None and section.resume_file and not weights_only:
        path = load(lambda: _find_named_checkpoint(section.resume_file))
    if path is None and averages:
        raise UserError(
            "evaluation.ema: true needs a checkpoint of a run with training.ema. Set checkpoint.resume: true, or set "
            "checkpoint.resume_file and checkpoint.resume_pretrained: false."
        )
    if path is None:
        if section.resume and compare is None and not weights_only:
            raise UserError(
                f"checkpoint.resume: {checkpoints.folder} has no checkpoint to evaluate. Set env.save_dir to a run "
                "folder, or set checkpoint.resume_file instead."
            )
        if section.resume:
            mmf_api.log(f"checkpoint.resume: {checkpoints.folder} has no checkpoint. Training starts at update 0.")
        model_source = section.resume_file if weights_only else None
        mapping = section.get("pretrained_state_mapping")
        cache_dir = config.env.cache_dir
        for message in load_pretrained_weights(model, model_source, checkpoint_config, cache_dir, mapping):
            mmf_api.log(message)
        return None
    mmf_api.log(f"Loaded the model from {path}")
    resumes = path.is_dir() and not section.reset.all and (from_this_run or not section.resume_pretrained)
    return path if resumes else None


def _load_checkpoint(
    model: nn.Module, find: Callable[[], Path | None], compare: Callable[[Path], None] | None, averages: bool
) -> Path | None:
    """Find a checkpoint on the first process, and load its weights on all processes. Return its path, or None.

    If the checkpoint was removed meanwhile, by a process that trains in its folder, the next one is loaded.
    """
    for _ in range(ATTEMPTS):
        path = gather_objects(find() if rank() == 0 else None)[0]
        if path is None:
            return None
        removed = False
        try:
            if compare is not None and path.is_dir():
                compare(path)
            load_checkpoint_weights(model, find_averages(path) if averages else path)
        except (UserError, OSError):
            removed = not path.exists()
            if not removed:
                raise
        if not any(gather_objects(removed)):
            return path
    raise UserError(f"{path} was removed while it was read, and so were later checkpoints. Increase max_to_keep.")


def _find_named_checkpoint(name: str) -> Path:
    """Return the checkpoint folder or file that ``checkpoint.resume_file`` names, with verified checksums.

    Raises:
        UserError: it is missing or corrupt.
    """

    def find() -> Path:
        named = Path(name).expanduser().absolute()
        path = find_checkpoint(named)
        if path == named and not path.exists():
            raise UserError(
                f"checkpoint.resume_file: {path} does not exist. Set it to a checkpoint, or set "
                "checkpoint.resume_pretrained: true to load a Hugging Face model ID, a URL or other weights files."
            )
        return path

    return read_found(find, verify_named_checkpoint)


def verify_named_checkpoint(path: Path) -> Path:
    """Verify the checksums of the checkpoint folder or file that ``checkpoint.resume_file`` names, and return it.

    Raises:
        UserError: the checkpoint is missing or corrupt.
    """
    try:
        (verify_folder if path.is_dir() else verify_file)(path)
    except CorruptFileError as error:
        raise UserError(
            f"checkpoint.resume_file: {error} Choose another checkpoint, or set checkpoint.resume_pretrained: true to "
            "load weights that are not a checkpoint of mmf_flava."
        ) from None
    return path


def load_pretrained_weights(
    model: nn.Module,
    model_source: str | None,
    config: CheckpointConfig,
    cache_dir: str | None,
    mapping: Mapping[str, str] | None = None,
) -> list[str]:
    """Load pretrained weights of the complete model, or those that the model's config selects.

    Args:
        model_source: file, folder, URL or Hugging Face model ID of a complete model, or None.
        config: ``allow_missing`` and ``allow_extra`` are patterns of weights that may be missing in the file or the
            model, respectively.
        mapping: see ``load_stock_weights``.

    Returns:
        A log message for each loaded source.

    Raises:
        UserError: a source was not found, its file is unsafe or corrupt, or its weights do not match the model.
    """
    if model_source is None:
        return model_interface.load_pretrained(model, config.allow_missing, config.allow_extra, cache_dir)
    load: Callable[..., IncompatibleKeys] = partial(load_stock_weights, mapping=mapping)
    if isinstance(getattr(model, "settings", None), CoreConfig):
        load = partial(load_weights, new_vocabulary=initial_processors(in_run=True).new_vocabulary)
    keys = load(model, model_source, config.allow_missing, config.allow_extra, cache_dir)
    return [keys.message("model", model_source)]
