"""Base class of the builders of streaming datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from torch.utils.data import DataLoader

from mmf_flava.config.dataset_base import DatasetConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.config.recipes import locate_recipe
from mmf_flava.config.schema import parse_section
from mmf_flava.config.splits import SPLITS
from mmf_flava.data.preparation_commands import build_command
from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote


def run_trains() -> bool:
    """Return whether ``run_type`` of MMF's current config trains. MMF's trainers load the train split of every run."""
    config = registry.get("config", default=None, no_warning=True) or {}
    return "train" in str(config.get("run_type") or "train")


class StreamBuilder(BaseDatasetBuilder):
    """Base class of builders, which create streaming datasets from the paths in their config.

    ``NAME`` is the name of the dataset, and ``CONFIG`` the config class of the section ``dataset_config.NAME``.
    """

    NAME = ""
    CONFIG: Any = DatasetConfig

    def __init__(self) -> None:
        super().__init__(self.NAME)

    @classmethod
    def config_path(cls) -> str | None:
        """Return the absolute path of the dataset's default config file."""
        return locate_recipe(f"projects/flava/configs/datasets/{cls.NAME}.yaml")

    @classmethod
    def parse(cls, section: Any) -> Any:
        """Convert the section ``dataset_config.NAME`` to ``CONFIG``. Raises UserError if a key or value is invalid."""
        return parse_section(cls.CONFIG, section, f"dataset_config.{cls.NAME}")

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Build the data of a split if they are missing. MMF calls this on rank 0 only."""
        self.build_files(self.parse(config), dataset_type)

    def build_files(self, config: Any, dataset_type: str) -> None:
        """Build missing data if ``build`` is set: in ``build_dir`` only if this folder does not exist."""
        if config.build is None:
            return
        folder, paths = config.data_dir, [path for split in SPLITS for path in self.list_paths(config, split)]
        if config.build_dir is not None:
            folder, paths = config.build_dir, [resolve_path(config.build_dir)]
        if all(isinstance(path, str) or path.exists() for path in paths):
            return
        from mmf_flava.data.prepare import built_folder, demo, photos

        # ``load`` raises an error for existing but invalid data
        if built_folder.read_manifest(folder, config.build) is None:
            builders: dict[str, Callable[[str], Any]] = {"demo": demo.prepare_demo, "photos": photos.prepare_photos}
            builders[config.build](folder)

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> StreamDataset | None:
        """Load the dataset of one split; return None for a split without paths.

        Raises:
            UserError: a key or value is invalid, a train split to train on has no paths, or a file is missing.
        """
        return self.load_split(self.parse(config), dataset_type)

    def load_split(self, config: Any, dataset_type: str) -> StreamDataset | None:
        """Load the dataset of one split; return None for a split without paths that the run does not train on."""
        paths = self.list_paths(config, dataset_type)
        if not paths:
            if dataset_type == "train" and run_trains():
                raise UserError(
                    f"dataset_config.{self.NAME}.splits.train: no paths are listed. List folders or shards "
                    f"relative to {config.data_dir}, or remove {self.NAME} from the config key datasets."
                )
            return None
        try:
            return self.open_split(config, dataset_type, paths)
        except UserError as error:
            command = build_command(config.build, config.data_dir) if config.build and not config.build_dir else ""
            hint = f" Build the data with `{command}`." if command else ""
            raise UserError(f"dataset_config.{self.NAME}.splits.{dataset_type}: {error}{hint}") from error

    def open_split(self, config: Any, dataset_type: str, paths: list[str | Path]) -> StreamDataset:
        """Open the dataset of one split from its paths."""
        raise NotImplementedError

    def build_dataloader(
        self, dataset_instance: StreamDataset | None, dataset_type: str, *args: Any, **kwargs: Any
    ) -> DataLoader:
        """Build the data loader of a split for MMF's own trainers (see ``epochs``). Only MMF's main branch calls this.

        Raises:
            UserError: the split has no paths.
        """
        if dataset_instance is None:
            raise UserError(
                f"dataset_config.{self.NAME}.splits.{dataset_type}: no paths are listed, but this run requires "
                f"the split. List folders or shards relative to data_dir."
            )
        return dataset_instance.build_loader()

    def update_registry_for_model(self, config: Any) -> None:
        """Do nothing: the configs of FLAVA models do not depend on datasets. MMF calls this hook of every builder."""

    @staticmethod
    def list_paths(config: Any, dataset_type: str) -> list[str | Path]:
        """Return the paths of a split. Relative paths are resolved against ``data_dir``. URLs remain unchanged."""
        paths = config.splits.paths(dataset_type)
        return [path if is_remote(path) else resolve_path(path, config.data_dir) for path in paths]
