"""MMF 1.0.0rc10."""

from typing import Any

from mmf.common.registry import registry
from mmf.utils.build import build_dataset

from mmf_flava.errors import UserError

__all__ = ["FORMER_KEYS", "build_dataset", "check_callbacks", "log", "user_callbacks"]

# none: rc10 is the first line that recipes were written for
FORMER_KEYS: dict[str, set[str]] = {}


def log(message: str) -> None:
    """One line to MMF's log, on the terminal and in ``train.log``; the master process only."""
    registry.get("writer").write(message)


def check_callbacks(config: Any) -> None:
    """Raises UserError where the recipe has callbacks: this line calls none."""
    if "callbacks" in config.training:
        raise UserError(
            "training.callbacks: MMF 1.0.0rc10 has no callbacks; leave the key out, or use MMF's main branch."
        )


def user_callbacks(config: Any, trainer: Any) -> list[Any]:
    """None; raises UserError as ``check_callbacks``."""
    check_callbacks(config)
    return []
