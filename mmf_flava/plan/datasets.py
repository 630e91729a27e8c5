"""The datasets of a run: their records, and how many updates, samples and epochs the run takes from them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.config.schedule import set_updates_of_epochs
from mmf_flava.config.splits import SPLITS
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.map_stream import MapStream
from mmf_flava.errors import UserError

SIMULATED = 20_000  # updates whose datasets are determined; longer runs are extrapolated


@dataclass(frozen=True)
class DatasetPlan:
    """What a run takes from a dataset.

    Attributes:
        records: split -> number of records.
        samples_per_epoch: number of training samples of an epoch.
    """

    name: str
    records: dict[str, int]
    samples_per_epoch: int
    updates: int
    samples: int

    @property
    def epochs(self) -> float:
        return self.samples / self.samples_per_epoch if self.samples_per_epoch else 0.0


def open_datasets(config: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Open all splits of all datasets as a run does.

    Returns:
        Split -> dataset name -> dataset, and a message for each dataset that cannot be opened.
    """
    datasets: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    problems: list[str] = []
    for name in config.datasets.split(","):
        for split in SPLITS if "train" in config.run_type else SPLITS[1:]:
            try:
                dataset = mmf_api.build_dataset(name, config.dataset_config[name], split)
                if dataset is not None:
                    datasets[split][name] = MapStream.of(dataset, name, split, 0)
            except UserError as error:
                problems.append(str(error))
                break
    size = config.training.batch_size
    for name, dataset in datasets["train"].items():
        if len(dataset) < size:
            problems.append(
                f"training.batch_size is {size}, but dataset '{name}' has only {len(dataset)} training samples. Set "
                "a smaller batch size: a batch contains each sample at most once."
            )
    return datasets, problems


def plan_datasets(config: Any, datasets: Mapping[str, Mapping[str, Any]]) -> list[DatasetPlan]:
    """Return what the run takes from each dataset, and set the updates of ``max_epochs`` and of the intervals."""
    training, train = config.training, datasets["train"]
    set_updates_of_epochs(config, datasets)
    schedule = DatasetSchedule(train, mmf_api.read_multitasking(config), max(training.seed or 0, 0))
    simulated = min(training.max_updates, SIMULATED)
    counts = Counter(schedule.dataset_at(update) for update in range(simulated))
    per_update = training.batch_size * training.get("update_frequency", 1)
    plans = []
    for name, dataset in train.items():
        updates = round(counts[name] * training.max_updates / max(simulated, 1))
        sizes = {split: datasets[split][name] for split in SPLITS if name in datasets[split]}
        records = {split: int(getattr(opened, "size", len(opened))) for split, opened in sizes.items()}
        plans.append(DatasetPlan(name, records, len(dataset), updates, updates * per_update))
    return plans
