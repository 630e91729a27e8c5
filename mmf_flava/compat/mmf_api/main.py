"""The main branch of MMF's repository."""

import logging
from typing import Any

from mmf.utils.build import build_datamodule
from mmf.utils.distributed import is_main, synchronize
from torch.utils.data import Dataset

__all__ = ["FORMER_KEYS", "build_dataset", "log"]

# what recipes for 1.0.0rc10 may say, and here has no meaning
FORMER_KEYS = {"training": {"stdout_capture"}}

logger = logging.getLogger("mmf.flava")


def build_dataset(name: str, config: Any, split: str) -> Dataset | None:
    """One split of a dataset by its registered builder; the first process builds what is not there."""
    module: Any = build_datamodule(name)
    if is_main():
        module.build_dataset(config)
    synchronize()
    dataset: Dataset | None = module.load_dataset(config, split)
    module.update_registry_for_model(config)
    return dataset


def log(message: str) -> None:
    """One line to MMF's log, on the terminal and in ``train.log``; the master process only."""
    if is_main():
        logger.info(message)
