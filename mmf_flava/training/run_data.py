"""What a run reads: its datasets by split, the endless stream of training batches, the vocabularies."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.turns import Turns
from mmf_flava.errors import UserError
from mmf_flava.ranks import rank, world_size
from mmf_flava.training.settings import Settings

SPLITS = ("train", "val", "test")


class RunData:
    """Opens all datasets of a recipe through their registered builders.

    Attributes:
        datasets: split -> dataset name -> dataset; "probe" has the training images of a linear probe.
        loader: of the training batches; there is none where nothing is trained.

    Raises:
        UserError: a dataset without a section or with too few samples, or data that are not there.
    """

    def __init__(self, config: Any, settings: Settings, trains: bool) -> None:
        self.datasets: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
        for name in settings.datasets:
            if name not in config.dataset_config:
                raise UserError(f"dataset_config has no section '{name}', which datasets names.")
            for split in SPLITS if trains else SPLITS[1:]:
                dataset = mmf_api.build_dataset(name, config.dataset_config[name], split)
                if dataset is not None:
                    self.datasets[split][name] = dataset
        self.datasets["probe"] = {}
        probe = settings.evaluation.linear_probe
        if probe is not None and probe.dataset in settings.datasets:
            self.datasets["probe"][probe.dataset] = self._training_images(probe.dataset, config)
        if trains:
            self.loader = self._open_loader(config.training, settings)

    @staticmethod
    def _training_images(name: str, config: Any) -> Any:
        """The training split as evaluation sees it: each record once, whole, in the order of the files."""
        section: Any = OmegaConf.create(OmegaConf.to_container(config.dataset_config[name], resolve=True))
        listed = (section.get("splits") or {}).get("train")
        if not listed:
            raise UserError(
                f"evaluation.linear_probe learns from training images; dataset_config.{name}.splits.train lists none."
            )
        section.splits = {"test": listed if isinstance(listed, str) else list(listed)}  # without a mixture's weights
        return mmf_api.build_dataset(name, section, "test")

    def _open_loader(self, training: Any, settings: Settings) -> MultitaskLoader:
        for name in settings.datasets:
            if name not in self.datasets["train"]:
                raise UserError(f"dataset_config.{name}.splits.train lists no data; '{name}' is to be trained on.")
        for name, dataset in self.datasets["train"].items():
            if len(dataset) < training.batch_size:
                raise UserError(
                    f"training.batch_size is {training.batch_size}, but dataset '{name}' has {len(dataset)} training "
                    "samples; a batch may hold each of them once."
                )
        seed = training.seed or 0
        return MultitaskLoader(
            self.datasets["train"],
            Turns(self.datasets["train"], settings.multitasking, seed),
            batch_size=training.batch_size,
            num_workers=training.num_workers,
            seed=seed,
            rank=rank(),
            world_size=world_size(),
            pin_memory=training.pin_memory,
            batches_per_turn=settings.training.update_frequency,
        )

    @property
    def vocabularies(self) -> dict[str, str]:
        """sha256 of the vocabulary of each training dataset with text."""
        processors = {name: getattr(data, "text_processor", None) for name, data in self.datasets["train"].items()}
        return {name: found.vocabulary_hash for name, found in processors.items() if found is not None}

    def check_vocabularies(self, trained_with: dict[str, str], path: Path) -> None:
        """Raises UserError where a tokenizer is another one than the checkpoint at ``path`` was trained with."""
        for name, found in self.vocabularies.items():
            if trained_with.get(name, found) != found:
                raise UserError(
                    f"{path} was trained with another vocabulary than dataset_config.{name}'s tokenizer has now: "
                    "name the tokenizer that it was trained with."
                )

    def check_embeddings(self, rows: int) -> None:
        """Raises UserError for a tokenizer of more words than ``rows``: it would index beyond the embeddings."""
        for name, dataset in {**self.datasets["test"], **self.datasets["train"]}.items():
            processor = getattr(dataset, "text_processor", None)
            if processor is not None and (words := processor.vocab_size) > rows:
                raise UserError(
                    f"The tokenizer of dataset '{name}' has {words} words, model_config.flava.text_encoder.vocab_size "
                    f"is {rows}; set it to at least {words}."
                )
