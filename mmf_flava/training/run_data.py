"""The data of a run: datasets by split, the endless stream of training batches, and processors."""

import socket
import time
from typing import Any, NamedTuple
from zlib import crc32

import torch
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.global_generators import seeded_generators
from mmf_flava.data.map_stream import MapStream, prepare_batch
from mmf_flava.data.order import largest_divisor
from mmf_flava.data.quarantine import Quarantine
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.saved_processors import SavedProcessors, class_names
from mmf_flava.errors import UserError
from mmf_flava.processes import gather_objects, rank, world_size
from mmf_flava.training.settings import Settings
from mmf_flava.training.signals import StopSignals

SPLITS = ("train", "val", "test")


class LoadedBatch(NamedTuple):
    """A training batch on the CPU, its dataset, and the seconds waited for it."""

    dataset: Any
    batch: Any
    waited: float

    def prepare(self, device: torch.device) -> Any:
        """Return the batch on the device of the model."""
        return prepare_batch(self.dataset, self.batch, device)


class RunData:
    """The datasets of a run, built by MMF's registered dataset builders, and the loader of training batches.

    Attributes:
        datasets: split -> dataset name -> endless stream of samples; the split "probe" contains the training images of
            a linear probe or of nearest neighbours.
        processors: image and text processors of the datasets; a processor that no dataset has is taken from the weights
            that the run starts from.
        loader: loader of the training batches; not set if the run does not train.

    Raises:
        UserError: a dataset has no config section or too few samples, its files were not found, or processes have
            different files.
    """

    def __init__(self, config: Any, settings: Settings, trains: bool) -> None:
        self.datasets: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
        self._seed, self._fast_read = max(config.training.seed or 0, 0), config.training.get("fast_read", False)
        for name in settings.datasets:
            if name not in config.dataset_config:
                raise UserError(
                    f"datasets: '{name}' has no section in dataset_config. Add the section, or remove the dataset."
                )
            for split in SPLITS if trains else SPLITS[1:]:
                dataset = self._build(name, config.dataset_config[name], split)
                if dataset is not None:
                    self.datasets[split][name] = dataset
        ordered = [dataset for split in SPLITS for dataset in self.datasets[split].values()]
        classes = next((names for dataset in ordered if (names := class_names(dataset))), None)
        labels = OmegaConf.select(config, f"model_config.{config.model}.num_labels")
        own = SavedProcessors.of_datasets(ordered, classes if len(classes or ()) == labels else None)
        self.processors = own.completed_by(initial_processors(in_run=True).saved)
        self.datasets["probe"] = {}
        evaluation = settings.evaluation
        for key, probe in (("linear_probe", evaluation.linear_probe), ("knn", evaluation.knn)):
            if probe is None or probe.dataset not in settings.datasets or probe.dataset in self.datasets["probe"]:
                continue
            self.datasets["probe"][probe.dataset] = self._build_probe_dataset(probe.dataset, config, key)
        self._compare_sizes()
        if trains:
            self.loader = self._open_loader(config.training, settings)

    def _build(self, name: str, section: Any, split: str) -> Any:
        """Build the stream of a split; None if the dataset does not have the split."""
        if self._fast_read and "fast_read" in section:
            section.fast_read = True  # MMF's datasets read only this key
        # with fast_read, samples are read while the dataset is built
        with seeded_generators(self._seed, 0, crc32(f"{name} {split}".encode())):
            dataset = mmf_api.build_dataset(name, section, split)
        return None if dataset is None else MapStream.of(dataset, name, split, self._seed)

    def _compare_sizes(self) -> None:
        """Raise UserError if a split has another size in another process, e.g. because a node lacks some files."""
        sizes = {
            f"dataset_config.{name}.splits.{split}": (getattr(dataset, "size", len(dataset)), len(dataset))
            for split in SPLITS
            for name, dataset in self.datasets[split].items()
        }
        (first_host, first), *others = gather_objects((socket.gethostname(), sizes))
        for number, (host, other) in enumerate(others, 1):
            for key in sorted({*first, *other}):
                if (expected := first.get(key, (0, 0))) != (found := other.get(key, (0, 0))):
                    a, b = (f"{records:,} records ({samples:,} samples)" for records, samples in (expected, found))
                    raise UserError(
                        f"{key}: rank 0 on {first_host} has {a}, rank {number} on {host} has {b}. Give all processes "
                        "the same files."
                    )

    def _build_probe_dataset(self, name: str, config: Any, key: str) -> Any:
        """Build the training split for ``evaluation.KEY``: without augmentation, each record once, in file order."""
        section: Any = OmegaConf.create(OmegaConf.to_container(config.dataset_config[name], resolve=True))
        paths = (section.get("splits") or {}).get("train")
        if not paths:
            raise UserError(
                f"dataset_config.{name}.splits.train is empty, but evaluation.{key} needs training images. Add the "
                f"images, or remove evaluation.{key}."
            )
        # a mapping of paths to mixture weights becomes a list of its paths
        section.splits = {"test": paths if isinstance(paths, str) else list(paths)}
        return self._build(name, section, "test")

    def load_batches(self, batches: Any, signals: StopSignals, quarantine: Quarantine) -> list[LoadedBatch]:
        """Return the batches of an update; none if a signal came before.

        Args:
            batches: iterator of ``loader``.
            quarantine: lists the bad records of the batches.
        """
        loaded: list[LoadedBatch] = []
        while len(loaded) < self.loader.consecutive_batches:
            started = time.perf_counter()
            # a signal may interrupt waiting for data only before the first batch, and only if the run has one process
            interruptible = world_size() == 1 and not loaded
            item = signals.run_unless_stopped(lambda: next(batches)) if interruptible else next(batches)
            if item is None:
                return []
            name, batch = item
            loaded.append(LoadedBatch(self.datasets["train"][name], batch, time.perf_counter() - started))
            quarantine.update(batch)
        return loaded

    def _open_loader(self, training: Any, settings: Settings) -> MultitaskLoader:
        for name in settings.datasets:
            if name not in self.datasets["train"]:
                raise UserError(
                    f"dataset_config.{name}.splits.train is empty, but the run trains on '{name}'. Add the training "
                    "data, or remove the dataset from datasets."
                )
        for name, dataset in self.datasets["train"].items():
            if len(dataset) < training.batch_size:
                raise UserError(
                    f"training.batch_size is {training.batch_size}, but dataset '{name}' has only {len(dataset)} "
                    "training samples. Set a smaller batch size: a batch contains each sample at most once."
                )
        loader = MultitaskLoader(
            self.datasets["train"],
            DatasetSchedule(self.datasets["train"], settings.multitasking, self._seed),
            batch_size=training.batch_size,
            num_workers=training.num_workers,
            seed=self._seed,
            rank=rank(),
            world_size=world_size(),
            pin_memory=training.pin_memory,
            consecutive_batches=settings.training.update_frequency,
            lanes=settings.training.lanes,
        )
        better = largest_divisor(training.batch_size, settings.training.lanes)
        if 4 * loader.lanes < better:
            mmf_api.log(
                f"Warning: a batch of {training.batch_size} samples is read from only {loader.lanes} places in each "
                f"dataset, the largest common divisor of training.batch_size and training.lanes. Set "
                f"training.lanes={better} to mix the data better."
            )
        return loader
