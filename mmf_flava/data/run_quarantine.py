"""The list of bad records of a run whose trainer is not ``flava``, which lists them itself."""

from pathlib import Path
from typing import Any

from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from mmf_flava.config.dataset_base import EntriesConfig
from mmf_flava.data.quarantine import Quarantine
from mmf_flava.processes import rank

KEY = "flava_quarantine"


def list_bad_records(batch: Any) -> None:
    """List the bad records of a batch that a trainer prepares, unless it is the trainer ``flava``."""
    config = registry.get("config", no_warning=True) or {}
    if (config.get("training") or {}).get("trainer") not in (None, "flava"):
        run_quarantine().update(batch)


def max_bad_share(name: str) -> float | None:
    """Return the key ``dataset_config.<name>.max_bad_share`` of MMF's current config, or its default."""
    config = registry.get("config", no_warning=True) or {}
    section = (config.get("dataset_config") or {}).get(name) or {}
    return section.get("max_bad_share", EntriesConfig.max_bad_share)


def run_quarantine() -> Quarantine:
    """Return the quarantine of the current run of this process, whose file is in the run folder.

    The limits are ``dataset_config.<name>.max_bad_share``, also for MMF's datasets.
    """
    config: Any = registry.get("config")
    current = registry.get(KEY, no_warning=True)
    if current is None or current[0] is not config:
        number = rank()
        file = Path(mmf_api.save_dir()) / (f"quarantine_{number}.jsonl" if number else "quarantine.jsonl")
        names = [name.strip() for name in str(config.datasets).split(",")]
        limits = {name: max_bad_share(name) for name in names}
        current = config, Quarantine(file, limits, mmf_api.log)
        registry.register(KEY, current)
    return current[1]
