"""Filters for warnings about the code of MMF and fairscale, which users cannot act on."""

import warnings
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains


@patch(
    "mmf",
    when="before",
    what="warnings about MMF's own outdated code are ignored",
    why="users cannot act on them, and they hide important warnings",
    since="Python 3.12",
    until="MMF writes its regular expressions as raw strings",
    needed=lambda _: flava_run.process_is_flava(),
)
def mmf(_: None) -> None:
    # while MMF's files are compiled; "invalid escape sequence" has the file's name as its module
    for category in (DeprecationWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", message=r"invalid escape sequence|\"is( not)?\" with", category=category)
    # from its trainer, which passes the update to torch's schedulers
    warnings.filterwarnings("ignore", message=r"The epoch parameter in `scheduler\.step")


@patch(
    "mmf.trainers.core.training_loop",
    what="warnings about torch.cuda.amp in MMF's trainer are ignored",
    why="users cannot act on them, and there are two at every start",
    since="torch 2.4",
    until="MMF uses autocast and GradScaler of torch.amp",
    needed=lambda module: (
        flava_run.is_current() and source_contains("torch.cuda.amp", "TrainerTrainingLoopMixin._forward")(module)
    ),
)
def amp(_: Any) -> None:
    outdated = r"`torch\.cuda\.amp\.(autocast|GradScaler)"
    warnings.filterwarnings("ignore", message=outdated, category=FutureWarning, module=r"mmf\.trainers")


@patch(
    "fairscale",
    when="before",
    what="warnings about torch's deprecations in fairscale's code are ignored",
    why="there are dozens of them per process, and users cannot act on them",
    since="torch 2.0",
    until="fairscale, which is archived, is replaced by torch's own FSDP",
    needed=lambda _: flava_run.is_current(),
)
def fairscale(_: None) -> None:
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"fairscale\.")
    # torch reports itself as the origin of these
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.custom_", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\._all_gather_base`", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
