"""Attributes that MMF's dataset builders set in ``build``, which only rank 0 calls, and read in ``load``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmf_flava.processes import gather_objects, rank


@contextmanager
def share_attributes(builder: Any) -> Iterator[None]:
    """Give all processes the attributes that rank 0 sets in this context, such as ``data_folder`` of ``clevr``.

    Only text, numbers, paths and sections of the config are shared. Must be called by all processes.
    """
    before = dict(vars(builder))
    yield
    found = {name: value for name, value in vars(builder).items() if name not in before or value is not before[name]}
    shared = {name: value for name, value in found.items() if _is_plain(value)}
    built = gather_objects(shared if rank() == 0 else None)[0]
    if rank() > 0:
        vars(builder).update(built)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | Path) or OmegaConf.is_config(value)
