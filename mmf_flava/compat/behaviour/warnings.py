"""Filters for warnings about the code of MMF and fairscale that users cannot fix."""

import warnings
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains


@patch(
    "mmf",
    when="before",
    what="warnings about MMF's own outdated code are ignored",
    why="users cannot fix MMF's code, and these warnings hide important warnings",
    since="Python 3.12",
    until="MMF writes its regular expressions as raw strings",
    needed=lambda _: flava_run.process_is_flava(),
)
def mmf(_: None) -> None:
    # raised when MMF's files are compiled; not filtered by module, which is the file name for these warnings
    for category in (DeprecationWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", message=r"invalid escape sequence|\"is( not)?\" with", category=category)
    # raised by MMF's trainer, which passes the update to torch's schedulers
    warnings.filterwarnings("ignore", message=r"The epoch parameter in `scheduler\.step")


@patch(
    "mmf.trainers.core.training_loop",
    what="warnings about torch.cuda.amp in MMF's trainer are ignored",
    why="users cannot fix MMF's code, and two warnings are printed at every start",
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
    why="users cannot fix fairscale's code, and dozens of warnings are printed per process",
    since="torch 2.0",
    until="fairscale, which is archived, is replaced by torch's own FSDP",
    needed=lambda _: flava_run.is_current(),
)
def fairscale(_: None) -> None:
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"fairscale\.")
    # torch's modules are the origin of the following warnings
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.custom_", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\._all_gather_base`", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
