"""MMF's own checkpoints, which today's torch does not read, and the details of git in them."""

from __future__ import annotations

import collections
import functools
import inspect
import pickle
import re
import typing
from types import ModuleType, SimpleNamespace
from typing import Any

from mmf_flava.compat.cure import cure, shadow, source_has
from mmf_flava.errors import UserError


def _own() -> list[Any]:
    """What MMF's checkpoints hold beside tensors and plain Python.

    The state of the schedulers pythia and multi_step has a function of MMF and the whole configuration in it; metrics,
    the best of which is kept, may be numpy's numbers.
    """
    import numpy as np
    from mmf.utils.general import lr_lambda_update
    from omegaconf import DictConfig, ListConfig, nodes
    from omegaconf.base import ContainerMetadata, Metadata

    # numpy 2 gives what makes its numbers another name, and a checkpoint may come from before
    scalar = np.float64().__reduce__()[0]
    numbers = [np.dtype, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]
    kinds = [type(np.dtype(kind)) for kind in (np.bool_, np.int32, np.int64, np.float32, np.float64)]
    plain = [typing.Any, dict, list, int, collections.defaultdict]
    return [
        lr_lambda_update,
        DictConfig,
        ListConfig,
        ContainerMetadata,
        Metadata,
        nodes.AnyNode,
        *plain,
        *numbers,
        *kinds,
    ]


@cure(
    "mmf.utils.checkpoint",
    when="after",
    what="MMF reads its own checkpoints, and names what else a checkpoint holds",
    why="torch unpickles only what is known to do no harm, to which MMF's schedulers do not belong: no run with "
    "training.lr_scheduler is resumed",
    since="torch 2.6",
    until="MMF's schedulers keep numbers only in their state",
    needed=lambda module: "safe_globals" not in inspect.getsource(module),
)
def own_checkpoints(module: ModuleType) -> None:
    import torch

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.serialization.safe_globals(_own()):
            try:
                return torch.load(file, *args, **kwargs)
            except (pickle.UnpicklingError, EOFError, IndexError) as error:
                raise UserError(_refusal(file, error)) from error
            except RuntimeError as error:
                if "PytorchStreamReader" not in str(error):
                    raise
                raise UserError(_refusal(file, error)) from error

    vars(module)["torch"] = shadow(torch, load=load)


def _refusal(file: Any, error: Exception) -> str:
    name = getattr(file, "name", file)
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign is None:
        return (
            f"{name} is no whole checkpoint ({type(error).__name__}), as when a run was killed while it was written: "
            "name another one, such as a file in models/, in checkpoint.resume_file."
        )
    return (
        f"{name} holds a {foreign[1]}, which torch does not unpickle since such a name could run any code: where you "
        "trust the file, load it with weights_only=False, save its weights alone, and name those instead."
    )


@cure(
    "mmf.utils.checkpoint",
    when="after",
    what="checkpoint.save_git_details, which is on by default, asks git only what it can answer",
    why="the first checkpoint ends with a traceback where MMF's checkout is on a detached HEAD, without a commit, or "
    "another user's, which git calls dubious ownership",
    since="MMF 1.0.0rc1",
    until="MMF asks whether HEAD is detached, and takes no for an answer",
    needed=source_has("active_branch", "Checkpoint._get_vcs_fields"),
)
def git_details(module: ModuleType) -> None:
    init = module.Checkpoint.__init__

    @functools.wraps(init)
    def __init__(self: Any, trainer: Any) -> None:
        init(self, trainer)
        if self.git_repo is not None:
            self.git_repo = _answering(self.git_repo)

    module.Checkpoint.__init__ = __init__


def _answering(repository: Any) -> Any:
    """The repository, in a form that has a branch; None where git tells nothing about it."""
    from git.exc import GitCommandError  # who has a repository has this package

    try:
        repository.git.rev_parse("HEAD")
    except GitCommandError:
        return None
    if not repository.head.is_detached:
        return repository
    # "HEAD" is what git itself says in place of a branch's name
    return SimpleNamespace(active_branch=SimpleNamespace(name="HEAD"), head=repository.head, git=repository.git)
