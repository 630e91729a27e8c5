"""Patches that let MMF's datasets read the published files, put into their folders by hand, without a download."""

from pathlib import Path
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.compat.published_annotations import is_questions, read_questions
from mmf_flava.compat.published_files import find_annotations, is_missing_in, missing_files


@patch(
    "mmf.datasets.mmf_dataset_builder",
    what="the annotations of a split are those that lie in the folder, such as dev_unseen.jsonl or dev_seen.jsonl",
    why="the names of Hateful Memes' splits differ between versions of MMF, and VQAv2's published files have others",
    since="MMF 1.0.0rc1",
    until="MMF reads the published files under their names",
)
def annotations(module: Any) -> None:
    def with_found(original: Any, self: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, find_annotations(self.dataset_name, config), *args, **kwargs)

    for method in ("build", "load"):
        wrap(module.MMFDatasetBuilder, method, only_if=flava_run.is_current)(with_found)


@patch(
    "mmf.datasets.mmf_dataset_builder",
    what="only files that the run reads and that are missing are downloaded",
    why="MMF downloads all files of a dataset that it has not downloaded itself, such as extras.tar.gz, which raw "
    "images and flava_tokens do not need; without a network the run fails",
    since="MMF 1.0.0rc1",
    until="MMF checks which files exist",
)
def downloads(module: Any) -> None:
    @wrap(module.MMFDatasetBuilder, "_download_requirement", only_if=flava_run.is_current)
    def _download_requirement(original: Any, self: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        self._flava_missing = missing_files(config)
        return original(self, config, *args, **kwargs)

    @wrap(module.MMFDatasetBuilder, "_download_resources", only_if=flava_run.is_current)
    def _download_resources(original: Any, self: Any, resources: Any, path: str, version: Any) -> Any:
        missing = getattr(self, "_flava_missing", None)
        if missing is None or is_missing_in(Path(path), missing):
            original(self, resources, path, version)


@patch(
    "mmf.datasets.databases.annotation_database",
    what="VQAv2's published questions and answers are read as MMF's imdb",
    why="MMF reads only the imdb files that it offers for download",
    since="MMF 1.0.0rc1",
    until="MMF reads VQAv2's published files",
)
def questions(module: Any) -> None:
    @wrap(module.AnnotationDatabase, "_load_json", only_if=flava_run.is_current)
    def _load_json(original: Any, self: Any, path: str) -> None:
        if not is_questions(path):
            original(self, path)
            return
        self.metadata, self.data, self.start_idx = {}, read_questions(Path(path)), 0
