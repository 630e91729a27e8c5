"""The list of bad records of a run whose trainer is MMF's or ``flava_finetune``."""

from pathlib import Path
from typing import Any

from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from mmf_flava.config.datasets import EntriesConfig
from mmf_flava.data.quarantine import Quarantine
from mmf_flava.processes import rank

DEFAULT_LIMIT = EntriesConfig.max_bad_share
KEY = "flava_quarantine"


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
        sections = {name: config.dataset_config.get(name) or {} for name in names}
        limits = {name: section.get("max_bad_share", DEFAULT_LIMIT) for name, section in sections.items()}
        current = config, Quarantine(file, limits, mmf_api.log)
        registry.register(KEY, current)
    return current[1]
