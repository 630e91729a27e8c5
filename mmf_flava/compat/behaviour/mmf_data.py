"""Patches of MMF's datasets: one-line errors for missing splits and invalid annotation files; bad entries."""

from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.annotation_lines import InvalidLine, parse_line
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.compat.published_annotations import name_image
from mmf_flava.config.workers import check_workers
from mmf_flava.errors import UserError

INVALID: dict[str, Any] = {
    "why": "MMF raises a KeyError, TypeError or ValueError that names neither file nor entry",
    "since": "MMF 1.0.0rc1",
    "until": "MMF checks its annotations",
}
# raised by MMF's datasets for an invalid entry; in other code they are errors of the program
ENTRY_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError)


@patch("mmf.datasets.databases.annotation_database", what="an invalid annotation file is a one-line error", **INVALID)
def annotation_file(module: Any) -> None:
    load = next(
        name for name in ("load_annotation_db", "_load_annotation_db") if hasattr(module.AnnotationDatabase, name)
    )

    @wrap(module.AnnotationDatabase, load, only_if=flava_run.is_current)
    def load_annotation_db(original: Any, self: Any, path: str) -> None:
        remedy = "Set dataset_config.NAME.annotations to the dataset's annotation files."
        try:
            original(self, path)
        except FileNotFoundError:
            raise UserError(f"The annotation file {path} was not found. {remedy}") from None
        except UserError:
            raise
        except ENTRY_ERRORS as error:
            raise UserError(
                f"The annotation file {path} cannot be read ({type(error).__name__}: {error}). {remedy}"
            ) from error


@patch("mmf.utils.checkpoint", what="a missing checkpoint is a one-line error", **INVALID)
def missing_checkpoint(module: Any) -> None:
    @wrap(module.Checkpoint, "load_state_dict", only_if=flava_run.is_current)
    def load_state_dict(original: Any, self: Any) -> Any:
        try:
            return original(self)
        except RuntimeError as error:
            if not str(error).endswith("doesn't exist"):
                raise
            file = str(error).removesuffix(" doesn't exist")
            raise UserError(f"checkpoint.resume_file: {file} was not found. Correct the path.") from None


@patch("mmf.utils.text", what="a missing vocabulary of a processor is a one-line error", **INVALID)
def missing_vocabulary(module: Any) -> None:
    @wrap(module.VocabDict, "__init__", only_if=flava_run.is_current)
    def __init__(original: Any, self: Any, vocab_file: str, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, vocab_file, *args, **kwargs)
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"vocab_file: {vocab_file} cannot be read ({error}). Set it to an existing file.") from None


@patch(
    "mmf.utils.build",
    what="too few open files or too little shared memory for data loader workers is a one-line error",
    why="the main process waits for its workers until a timeout",
    since="MMF 1.0.0rc1",
    until="MMF or torch checks the limits",
)
def workers(module: Any) -> None:
    @wrap(module, "build_dataloader_and_sampler", only_if=flava_run.is_current)
    def build_dataloader_and_sampler(original: Any, dataset: Any, training: Any, *args: Any, **kwargs: Any) -> Any:
        workers = training.get("num_workers")
        if workers is None:  # the main branch passes the section of the dataset
            workers = module.get_global_config("training").num_workers
        check_workers(workers)
        return original(dataset, training, *args, **kwargs)


STREAMS: dict[str, Any] = {
    "what": "MMF's trainers read mmf_flava's datasets with the loader of these datasets",
    "why": "MMF stacks the fields of samples, but the texts of a batch must be padded to the same length",
    "since": "MMF 1.0.0rc1",
    "until": "MMF builds loaders with the builder of the dataset, as on its main branch",
}


@patch("mmf.utils.build", needed=lambda module: not hasattr(module, "build_datamodule"), **STREAMS)
def stream_loader(module: Any) -> None:
    @wrap(module, "build_dataloader_and_sampler", only_if=flava_run.is_current)
    def build_dataloader_and_sampler(original: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(dataset, "build_loader"):
            return original(dataset, *args, **kwargs)
        loader = dataset.build_loader()
        loader.dataset_type = dataset.dataset_type
        return loader, loader.batch_sampler


@patch("mmf.common.test_reporter", needed=lambda module: hasattr(module, "DistributedSampler"), **STREAMS)
def stream_predictions(module: Any) -> None:
    @wrap(module.TestReporter, "get_dataloader", only_if=flava_run.is_current)
    def get_dataloader(original: Any, self: Any) -> Any:
        build = getattr(self.current_dataset, "build_loader", None)
        return original(self) if build is None else build()


@patch(
    "mmf.datasets.mmf_dataset_builder",
    what="a split whose annotations are null has no data, and missing images of a split are a one-line error",
    **INVALID,
)
def null_annotations(module: Any) -> None:
    @wrap(module.MMFDatasetBuilder, "load", only_if=flava_run.is_current)
    def load(original: Any, self: Any, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> Any:
        if not config.get("split_train") and not (config.get("annotations") or {}).get(dataset_type):
            self.config, self.dataset = config, None
            return None
        try:
            return original(self, config, dataset_type, *args, **kwargs)
        except UserError:
            raise
        except ENTRY_ERRORS as error:
            if not self.dataset_class.__module__.startswith("mmf."):
                raise
            raise UserError(
                f"dataset_config.{self.dataset_name}: the split {dataset_type} cannot be loaded "
                f"({type(error).__name__}: {error}). List the split's annotation files, and the same number of images "
                "or features."
            ) from error


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="a split without data is an error only if the run uses the split",
    needed=lambda module: hasattr(getattr(module, "MultiDatasetLoader", None), "build_datasets"),
    **INVALID,
)
def empty_split(module: Any) -> None:
    @wrap(module.MultiDatasetLoader, "load", only_if=flava_run.is_current)
    def load(original: Any, self: Any, config: Any) -> None:
        try:
            original(self, config)
        except (IndexError, ZeroDivisionError):
            if self._total_length:
                raise
            split, parts = self._dataset_type, config.run_type.split("_")
            used_by = {"val": {"train"}, "test": {"inference", "predict"}}.get(split, set())
            if not used_by.isdisjoint(parts) or split in parts:
                raise UserError(
                    f"dataset_config: the split {split} of {', '.join(self._given_datasets)} has no data, but run_type "
                    f"{config.run_type} uses it. List the split's files, or set another run_type, such as train."
                ) from None


@patch(
    "mmf.datasets.base_dataset_builder",
    what="a bad entry of a dataset of MMF is replaced by the next good entry, and listed in quarantine.jsonl",
    why="one bad entry stops the run with an exception that names neither file nor entry",
    since="MMF 1.0.0rc1",
    until="MMF skips bad entries",
)
def entries(module: Any) -> None:
    @wrap(module.BaseDatasetBuilder, "load_dataset", only_if=flava_run.is_current)
    def load_dataset(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        from mmf.common.registry import registry

        dataset, view = original(self, *args, **kwargs), registry.get("flava_good_entries", no_warning=True)
        return view.of(dataset) if view else dataset


@patch(
    "mmf.datasets.databases.annotation_database",
    what="an invalid line of an annotation file costs only the entry of this line",
    why="MMF raises a ValueError that does not name the line",
    since="MMF 1.0.0rc1",
    until="MMF skips invalid lines",
)
def annotation_lines(module: Any) -> None:
    @wrap(module.AnnotationDatabase, "_load_jsonl", only_if=flava_run.is_current)
    def _load_jsonl(original: Any, self: Any, path: str) -> None:
        with module.PathManager.open(path, "rb") as file:
            lines = [parse_line(line) for line in file.read().split(b"\n") if line.strip()]
        if all(isinstance(line, InvalidLine) for line in lines):
            original(self, path)
        self.data, self.start_idx = [name_image(line) for line in lines], 0


@patch(
    "mmf.datasets.builders.vqa2.dataset",
    what="fast_read is ignored if an entry is bad",
    **INVALID,
)
def fast_read(module: Any) -> None:
    @wrap(module.VQA2Dataset, "try_fast_read", only_if=flava_run.is_current)
    def try_fast_read(original: Any, self: Any) -> None:
        try:
            original(self)
        except ENTRY_ERRORS:
            self._should_fast_read = False  # the entry is reported when it is read
