"""MMF 1.0.0rc10."""

from mmf.common.registry import registry
from mmf.utils.build import build_dataset

__all__ = ["FORMER_KEYS", "build_dataset", "log"]

# none: rc10 is the first line that recipes were written for
FORMER_KEYS: dict[str, set[str]] = {}


def log(message: str) -> None:
    """One line to MMF's log, on the terminal and in ``train.log``; the master process only."""
    registry.get("writer").write(message)
