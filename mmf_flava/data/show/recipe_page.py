"""The page of a recipe's datasets: samples as training sees them, their masks, and statistics."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.config.datasets import MULTICROP
from mmf_flava.config.processors import MulticropConfig
from mmf_flava.data.from_recipe import dataset_names, dataset_section, open_dataset, read_recipe
from mmf_flava.data.show.page import render_page
from mmf_flava.data.show.samples import SampleCard, make_card
from mmf_flava.data.show.section import Section, make_section
from mmf_flava.data.show.statistics import compute_statistics
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.errors import UserError
from mmf_flava.files.html_page import write_page


def write_recipe_page(arguments: argparse.Namespace) -> None:
    """Write the page that the arguments of the command line select, and print its counts."""
    defaults = _default_overrides(arguments.recipe, arguments.overrides)
    config = read_recipe(arguments.recipe, [*arguments.overrides, *defaults])
    names = [arguments.dataset] if arguments.dataset else dataset_names(config)
    paths = {name: _paths(config, name, arguments.split) for name in names}
    if not any(paths.values()):
        raise UserError(
            f"{arguments.recipe} lists no data for the split {arguments.split} of {', '.join(names)}. Set "
            f"dataset_config.{names[0]}.splits.{arguments.split}, or choose another --split."
        )
    sections = [_section(config, name, listed, arguments) for name, listed in paths.items() if listed]
    stem = Path(arguments.recipe).stem
    out = arguments.out or Path(f"show_{stem}.html")
    write_page(out, render_page(stem, arguments.split, sections, [name for name in names if not paths[name]]))
    counts = ", ".join(f"{section.name} {section.size:,} {section.unit}" for section in sections)
    bad = sum(section.bad_records for section in sections)
    examined = sum(section.examined for section in sections)
    print(f"{out}: {arguments.split}: {counts}; {bad} of {examined:,} examined records are bad.")


def _default_overrides(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that set datasets and a model if the YAML file has only the section ``dataset_config``."""
    setup_imports()
    content = load_yaml(recipe)
    keys = {override.partition("=")[0] for override in overrides} | set(content)
    defaults = [] if "model" in keys else _model(content.get("dataset_config") or {})
    if content.get("dataset_config") and not keys & {"dataset", "datasets"}:
        defaults.append(f"dataset={','.join(content.dataset_config)}")
    return defaults


def _model(sections: Any) -> list[str]:
    """Return overrides that set a model for the image processors, and its image and patch sizes to theirs."""
    model = "flava"
    sizes: dict[str, Any] = {}
    for name in sections:
        processor = OmegaConf.select(sections, f"{name}.processors.image_processor") or {}
        params = processor.get("params") or {}
        sizes |= {key: params[key] for key in ("image_size", "patch_size") if key in params}
        if processor.get("type") == MULTICROP:
            model, side = "flava_dino", params.get("global_size", MulticropConfig.global_size)
            sizes |= {"image_size": side, "patch_size": math.gcd(side, params.get("local_size", 16))}
    return [f"model={model}", *(f"model_config.{model}.image_encoder.{key}={size}" for key, size in sizes.items())]


def _paths(config: Any, name: str, split: str) -> list[str | Path]:
    """Return the paths of a split in the config, or an empty list for datasets that are not from mmf_flava."""
    section, builder = dataset_section(config, name), registry.get_builder_class(name)
    return builder.list_paths(builder.parse(section), split) if issubclass(builder or object, StreamBuilder) else []


def _section(config: Any, name: str, paths: list[str | Path], arguments: argparse.Namespace) -> Section:
    dataset = open_dataset(config, name, arguments.split)
    cards, error = _cards(dataset, arguments.start, arguments.samples)
    return make_section(dataset, paths, cards, error, compute_statistics(dataset, arguments.statistics))


def _cards(dataset: StreamDataset, start: int, count: int) -> tuple[list[SampleCard], str | None]:
    """Return the cards that show ``count`` samples (at most one epoch), and the error message or None.

    An error ends the list of cards early.
    """
    cards: list[SampleCard] = []
    try:
        for number in range(start, start + min(count, len(dataset))):
            cards.append(make_card(dataset, number))
    except UserError as error:
        return cards, str(error)
    return cards, None
