"""The recipe and the data of a run. A checkpoint stores them, and a run that resumes from it compares its own."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.recipe_changes import (
    APPLIED,
    DATA,
    FREE,
    MODEL,
    OPTIMIZER,
    Change,
    find_changes,
    find_recipe_changes,
)
from mmf_flava.config.recipe_check import resolve
from mmf_flava.config.run import ResetConfig
from mmf_flava.config.written_values import store_recipe
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.checkpoint_names import LATEST, find_checkpoints, read_pointer
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import read_object
from mmf_flava.processes import gather_objects, rank
from mmf_flava.training import model_interface
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.run_data import RunData
from mmf_flava.weights.weight_files import find_checkpoint

IDENTITY = "identity"  # key in state.json
RANDOM_SEED = "flava_random_seed"  # key in MMF's registry, set by compat
VOCABULARY = "(vocabulary)"
MEANINGS = (VOCABULARY, "codebook (weights)")  # what the inputs and outputs of the model stand for
REMEDIES = {
    DATA: "checkpoint.reset.data=true (the order of the data starts anew; weights, optimizer and counts continue)",
    OPTIMIZER: "checkpoint.reset.optimizer=true (the optimizer's state starts anew)",
}


class RunIdentity:
    """The recipe and the data of a run, and how they differ from those of the checkpoint that it resumes from.

    Attributes:
        recipe: the stored recipe, see ``config.written_values``.
        data: what the files of each dataset contain, by name as in ``config.recipe_changes``.
        new_data: whether the order of the data starts anew, because they differ and ``checkpoint.reset`` allows it.
    """

    def __init__(self, recipe: Mapping[str, Any], data: Mapping[str, Any], loader: MultitaskLoader) -> None:
        self.recipe, self.data, self.loader, self.new_data = recipe, data, loader, False
        self.changes: list[Change] = []

    @classmethod
    def of_run(cls, config: Any, data: RunData, model: Any) -> "RunIdentity":
        """Return the identity of a run. Must be called by all processes; the first one reads the data.

        Args:
            config: the complete config.
        """
        written: Any = OmegaConf.to_container(config, resolve=False)
        recipe = store_recipe(resolve(config), written)
        contents = gather_objects(_describe_data(data.datasets) if rank() == 0 else None)[0]
        for key, sha256 in model_interface.fingerprints(model).items():
            contents[f"model_config.{config.model}.{key} (weights)"] = sha256[:16]
        return cls(recipe, contents, data.loader)

    def to_json(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "data": self.data}

    def compare(self, path: Path, reset: ResetConfig) -> None:
        """Compare the run with a checkpoint, and keep the changes.

        Raises:
            UserError: a key differs that must not, or the checkpoint does not store its identity.
        """
        with damaged_file(path / "state.json", "state of a checkpoint", "Resume from another checkpoint."):
            self._compare(path, read_object(path / "state.json"), reset)

    def _compare(self, path: Path, state: Mapping[str, Any], reset: ResetConfig) -> None:
        stored, new_order = state.get(IDENTITY), reset.data or reset.counts or reset.all
        self.changes, self.new_data = [], False
        if stored is None:
            if not new_order:
                raise UserError(
                    f"{path} was saved by an earlier version of mmf_flava, which had another order of the data. Set "
                    "checkpoint.reset.data=true to start the order anew with its weights, optimizer and counts, "
                    "checkpoint.reset.counts=true to start at update 0 with its weights and optimizer, or "
                    "checkpoint.resume_file and checkpoint.resume_pretrained=true to start from its weights only."
                )
            self.new_data = True
            return
        changes = [*find_recipe_changes(stored["recipe"], self.recipe), *find_changes(stored["data"], self.data)]
        # all datasets have one vocabulary, so an added or removed dataset does not change it
        changes = [change for change in changes if not (change.key.endswith(VOCABULARY) and change.is_of_one_side)]
        self.changes = sorted((change for change in changes if change.outcome != FREE), key=lambda change: change.row)
        if reset.all:  # only weights are loaded, which must fit the vocabulary and the image codes
            self.changes = [c for c in self.changes if c.key.endswith(MEANINGS) and not c.is_of_one_side]
        allowed = {APPLIED: True, DATA: new_order, OPTIMIZER: reset.optimizer, MODEL: False}
        if refused := [change for change in self.changes if not allowed[change.outcome]]:
            raise UserError(_refusal(refused, path))
        self.new_data = any(change.outcome == DATA for change in self.changes)
        if not self.new_data:
            try:
                self.loader.check_state(state["loader"])
            except UserError:
                if not new_order:
                    raise
                self.new_data = True

    def log_changes(self, path: Path) -> None:
        """Log every change that is applied, one record a key."""
        for change in self.changes:
            mmf_api.log(f"Changed since {path.name}: {change}")
        if self.new_data:
            mmf_api.log("checkpoint.reset: the order of the data starts anew.")


def _refusal(refused: list[Change], path: Path) -> str:
    """Return the sentences about changes that are refused."""
    first, outcomes = refused[0], {change.outcome for change in refused}
    old, new = first.values
    others = [change.key for change in refused[1:]]
    also = f" These keys differ too: {join_first(others, 5)}." if others else ""
    remedy = "set " + " and ".join(text for outcome, text in REMEDIES.items() if outcome in outcomes)
    if MODEL in outcomes:
        remedy = (
            f"train a new run in another env.save_dir from these weights: checkpoint.resume_file={path} "
            "checkpoint.resume_pretrained=true"
        )
    return (
        f"{first.key}: {new} differs from {old}, with which {path} was saved.{also} Restore the recipe and the data, "
        f"or {remedy}."
    )


def use_seed_of_checkpoint(config: Any, checkpoints: CheckpointFolder) -> None:
    """Set ``training.seed`` to the seed of the checkpoint to resume from, if the recipe's seed is -1 (random)."""
    section = config.checkpoint
    if not registry.get(RANDOM_SEED, default=False, no_warning=True) or section.reset.all or section.reset.counts:
        return
    folder = checkpoints.folder
    found = find_checkpoints(folder, read_pointer(folder / LATEST)) if section.resume else []
    if not found and section.resume_file and not section.resume_pretrained:
        with suppress(UserError, OSError):  # the error is raised when the checkpoint is loaded
            found = [find_checkpoint(Path(section.resume_file).expanduser().absolute())]
    for path in found:
        try:
            seed = read_object(path / "state.json")[IDENTITY]["recipe"]["training"]["seed"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # an older checkpoint is used, or the comparison explains why none can be used
        config.training.seed = seed
        mmf_api.log(f"training.seed: -1 is random. The seed of the checkpoint, {seed}, is used.")
        return


def _describe_data(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the files of each dataset contain."""
    data: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        for name, dataset in datasets[split].items():
            key = f"dataset_config.{name}.splits.{split}"
            data[f"{key} (records)"] = getattr(dataset, "size", len(dataset))
            data[f"{key} (samples of an epoch)"] = len(dataset)
            if weights := _mixture_weights(dataset, split):
                data[f"{key} (weights)"] = weights
            if hasattr(dataset, "fingerprint"):
                data[f"{key} (content)"] = dataset.fingerprint()[:16]
            if hasattr(dataset, "entries_sha256"):
                data[f"{key} (entries)"] = dataset.entries_sha256()[:16]
            vocabulary = getattr(getattr(dataset, "text_processor", None), "vocabulary_hash", None)
            if split == "train" and vocabulary is not None:
                data[f"dataset_config.{name}.processors {VOCABULARY}"] = vocabulary[:16]
            if split == "train" and hasattr(dataset, "views"):
                data[f"{key} (fixed crops)"] = dataset.views
            images: Any = getattr(dataset, "image_processor", None)
            if split == "train" and hasattr(images, "mean") and hasattr(images, "std"):
                data[f"dataset_config.{name}.processors (mean and std)"] = [[*images.mean], [*images.std]]
    return data


def _mixture_weights(dataset: Any, split: str) -> list[float] | None:
    """Return the weights of the paths of a split, in order; None if they have no weights."""
    splits = getattr(getattr(dataset, "config", None), "splits", None)
    paths = splits.get(split) if isinstance(splits, Mapping) else None
    return [float(weight) for weight in paths.values()] if isinstance(paths, Mapping) else None
