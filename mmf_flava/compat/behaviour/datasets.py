"""Patches of MMF's datasets and downloads: one-line errors for missing files."""

import os
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.errors import UserError

MISSING: dict[str, Any] = {
    "what": "the error message for a missing file contains the file's folder and URL",
    "why": "MMF prints the traceback of the failed download",
    "since": "MMF 1.0.0rc1",
    "until": "MMF distinguishes invalid input from its own errors",
}


@patch("mmf.utils.download", **MISSING)
def missing_file(module: Any) -> None:
    @wrap(module.DownloadableFile, "download_file", only_if=flava_run.is_current)
    def download_file(original: Any, self: Any, download_path: str) -> None:
        try:
            original(self, download_path)
        except (OSError, AssertionError) as error:
            folder = os.path.join(download_path, self._dest_folder or "")
            raise UserError(
                f"{self._file_name} was not found in {folder} and could not be downloaded from {self._url} "
                f"({type(error).__name__}). Copy the file to this folder, or set the path of an existing copy in "
                "dataset_config.NAME (for a dataset) or checkpoint.resume_file (for a checkpoint)."
            ) from error


@patch("mmf.datasets.builders.hateful_memes.builder", **MISSING)
def hateful_memes_by_hand(module: Any) -> None:
    @wrap(module.HatefulMemesBuilder, "build", only_if=flava_run.is_current)
    def build(original: Any, self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, config, *args, **kwargs)
        except AssertionError as error:
            folder = os.path.join(
                module.get_mmf_env(key="data_dir"), "datasets", self.dataset_name, "defaults", "annotations"
            )
            raise UserError(
                f"Hateful Memes: {folder} does not contain train.jsonl. The dataset is not downloaded automatically. "
                "Accept its license at https://fb.me/hm_prerequisites, and put its *.jsonl files there and its folder "
                "img into ../images, as mmf_convert_hm does."
            ) from error


@patch("mmf.datasets.builders.glue.builder", **MISSING)
def glue_of_the_hub(module: Any) -> None:
    @wrap(module.GLUEDataset, "__init__", only_if=flava_run.is_current)
    def __init__(original: Any, self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        remedy = "set dataset: glue, which reads GLUE's public files."
        try:
            original(self, config, *args, **kwargs)
        except ModuleNotFoundError as error:
            raise UserError(
                f"glue_{config.task} requires the package {error.name}. Run pip install {error.name}, or {remedy}"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"glue_{config.task} could not be downloaded from the Hugging Face Hub ({type(error).__name__}: "
                f"{error}). Check the network connection, or {remedy}"
            ) from error
