"""Patch that loads MMF's checkpoints, which current versions of torch reject by default."""

import collections
import inspect
import pickle
import re
import typing
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import overlay, patch
from mmf_flava.errors import UserError


def safe_globals() -> list[Any]:
    """Return the classes in MMF's checkpoints that ``torch.load`` must accept.

    The state of the schedulers pythia and multi_step contains a function of MMF and the complete configuration. The
    best value of a metric may be a numpy number.
    """
    import numpy as np
    from mmf.utils.general import lr_lambda_update
    from omegaconf import DictConfig, ListConfig, nodes
    from omegaconf.base import ContainerMetadata, Metadata

    # numpy 2 has renamed the function that creates its scalars; older checkpoints have the old name
    scalar = np.float64().__reduce__()[0]
    numbers = [np.dtype, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]
    kinds = [type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)]
    plain = [typing.Any, dict, list, int, collections.defaultdict]
    configuration = [DictConfig, ListConfig, ContainerMetadata, Metadata, nodes.AnyNode]
    return [lr_lambda_update, *configuration, *plain, *numbers, *kinds]


@patch(
    "mmf.utils.checkpoint",
    what="MMF can load its own checkpoints; in FLAVA's runs, the error for an unsafe file names the file and the class",
    why="torch.load rejects the classes in the state of MMF's schedulers, so that runs with training.lr_scheduler "
    "cannot be resumed",
    since="torch 2.6",
    until="the state of MMF's schedulers contains numbers only",
    needed=lambda module: "safe_globals" not in inspect.getsource(module),
)
def own_checkpoints(module: Any) -> None:
    import torch

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        if flava_run.is_current():
            kwargs["weights_only"] = True  # also if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set
        with torch.serialization.safe_globals(safe_globals()):
            try:
                return torch.load(file, *args, **kwargs)
            except (pickle.UnpicklingError, EOFError, IndexError, RuntimeError) as error:
                unreadable = not isinstance(error, RuntimeError) or "PytorchStreamReader" in str(error)
                if unreadable and flava_run.is_current():
                    raise UserError(_explain(file, error)) from error
                raise

    module.torch = overlay(torch, load=load)


def _explain(file: Any, error: Exception) -> str:
    name = getattr(file, "name", file)
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if unsafe is None:
        return (
            f"{name} is not a complete checkpoint ({type(error).__name__}). The run may have been killed during "
            "saving. Set checkpoint.resume_file to another checkpoint, such as a file in models/."
        )
    return (
        f"{name} contains {unsafe[1]}, which torch does not unpickle because it could execute arbitrary code. Set "
        "checkpoint.resume_file to a file that contains only weights, such as a file in models/."
    )
