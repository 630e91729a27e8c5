"""All files and packages that a run needs and that are missing, each with the command that provides it."""

import glob
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.recipe_check import check_model
from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.splits import SPLITS
from mmf_flava.config.zoo import find_in_zoo
from mmf_flava.data.preparation_commands import PREPARE, tokenizer_command
from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import load_codebook
from mmf_flava.weights.sources import find_processor_files

UNREACHABLE = re.compile(r"(\S+): the Hugging Face Hub cannot be reached")
# dataset -> the command that prepares its published data
COMMANDS = {
    "pmd": f"{PREPARE} pmd --part PART --src ANNOTATIONS --out",
    "imagenet": f"{PREPARE} imagenet --src PARQUET --out",
    "ccnews_bookcorpus": f"{PREPARE} text --src TEXTS --tokenizer TOKENIZER --out",
}
# the condition under which a run needs packages -> the packages, and the command that installs them. The check of the
# recipe names those of fp16 and fsdp.
PACKAGES: dict[str, tuple[Callable[[Any], bool], tuple[str, ...], str]] = {
    "training.wandb.enabled": (
        lambda c: bool(c.training.get("wandb", {}).get("enabled")),
        ("wandb",),
        "pip install wandb",
    ),
    "training.tensorboard": (
        lambda c: bool(c.training.get("tensorboard")),
        ("tensorboard",),
        "pip install tensorboard",
    ),
}


def find_missing(config: Any) -> list[str]:
    """Return a message for everything that is missing.

    Args:
        config: the complete config.
    """
    found = (
        *_missing_data(config),
        *_missing_tokenizers(config),
        *_missing_weights(config),
        *_missing_packages(config),
    )
    return [_add_download(message) for message in dict.fromkeys(found)]


def _add_download(message: str) -> str:
    """Add the command that downloads a repository of the Hugging Face Hub if it cannot be reached."""
    if (match := UNREACHABLE.search(message)) is None:
        return message
    name = match[1].partition("@")[0]
    return f"{message} `hf download {name} --local-dir DIR` on a connected machine creates such a copy."


def dataset_paths(config: Any, name: str, split: str) -> list[str | Path]:
    """Return the paths of a split of a dataset of mmf_flava; empty for other datasets."""
    builder = registry.get_builder_class(name)
    if not issubclass(builder or object, StreamBuilder):
        return []
    parsed = builder.parse(config.dataset_config[name])
    return [] if getattr(parsed, "source", None) else builder.list_paths(parsed, split)


def _missing_data(config: Any) -> Iterator[str]:
    for name in config.datasets.split(","):
        section = config.dataset_config.get(name)
        if section is None:
            yield f"datasets: '{name}' has no section in dataset_config. Add the section, or remove the dataset."
            continue
        data_dir = Path(str(section.get("data_dir") or ""))
        if section.get("build") and data_dir.is_relative_to(section.get("build_dir") or data_dir):
            continue  # a run creates these data
        for split in SPLITS:
            try:
                paths = dataset_paths(config, name, split)
            except UserError as error:
                yield str(error)
                break
            for path in paths:
                if isinstance(path, Path) and not path.exists() and not glob.glob(str(path)):
                    prepare = f"Create it with `{COMMANDS[name]} {path}`, or set" if name in COMMANDS else "Set"
                    yield (
                        f"dataset_config.{name}.splits.{split}: {path} does not exist. {prepare} "
                        f"dataset_config.{name}.data_dir and splits to data of your own."
                    )


def _missing_tokenizers(config: Any) -> Iterator[str]:
    names: dict[str, str] = {}
    for dataset in config.datasets.split(","):
        section = config.dataset_config.get(dataset) or {}
        processor = (section.get("processors") or {}).get("text_processor") or {}
        params = processor.get("params") or {}
        if (name := params.get("tokenizer")) and not section.get("build"):
            in_data = Path(str(section.get("data_dir") or "")).expanduser() / str(name)
            names.setdefault(str(in_data if in_data.is_dir() else name), dataset)
    for name, dataset in names.items():
        try:
            load_tokenizer(name)
        except UserError as error:
            key = f"dataset_config.{dataset}.processors.text_processor.params.tokenizer"
            command = (
                f" Create one with `{tokenizer_command(name, config)}`."
                if "prepare tokenizer" not in str(error)
                else ""
            )
            yield f"{key}: {error}{command}"


def _missing_weights(config: Any) -> Iterator[str]:
    builds = any((config.dataset_config.get(name) or {}).get("build") for name in config.datasets.split(","))
    model = config.model
    if model not in MODELS:
        return
    try:
        settings = check_model(model, OmegaConf.to_container(config.model_config[model], resolve=True))  # type: ignore[arg-type]
    except UserError as error:
        yield str(error)
        return
    codebook = getattr(settings, "codebook", None)
    if codebook is not None and codebook.type != "cached" and not builds:
        try:
            load_codebook(codebook)
        except UserError as error:
            yield str(error)
    where = f"model_config.{model}"
    sources = {"checkpoint.resume_file": config.checkpoint.resume_file}
    if zoo := config.checkpoint.resume_zoo:
        sources["checkpoint.resume_zoo"] = find_in_zoo(zoo)
    if not any(sources.values()):
        sources[f"{where}.pretrained"] = getattr(settings, "pretrained", None)
        for encoder in ("image_encoder", "text_encoder"):
            if hasattr(settings, encoder):
                sources[f"{where}.{encoder}.pretrained"] = getattr(settings, encoder).pretrained
    for key, source in sources.items():
        if source and "://" not in str(source):  # an address is downloaded when the run starts
            try:
                find_processor_files(source)
            except UserError as error:
                yield f"{key}: {error}"


def _missing_packages(config: Any) -> Iterator[str]:
    for key, (is_needed, packages, command) in PACKAGES.items():
        lacking = [package for package in packages if importlib.util.find_spec(package) is None]
        if is_needed(config) and lacking:
            yield f"{key} needs {' and '.join(lacking)}, which is not installed. Run `{command}`."
