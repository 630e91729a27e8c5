"""``python -m mmf_flava.data.show RECIPE [--dataset pmd] [--split train]``: a page about the data, to be looked at."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml
from mmf.utils.env import setup_imports

from mmf_flava.config.schema import positive
from mmf_flava.data.from_recipe import dataset_names, dataset_section, open_dataset, read_recipe
from mmf_flava.data.show.page import render
from mmf_flava.data.show.samples import Card, make_card
from mmf_flava.data.show.section import Section, make_section
from mmf_flava.data.show.statistics import measure
from mmf_flava.data.stream import StreamBuilder, StreamDataset
from mmf_flava.errors import UserError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m mmf_flava.data.show",
        description="Writes one HTML page about the data of a recipe: samples as training sees them, and statistics.",
    )
    top.add_argument("recipe", help="the YAML that mmf_run takes as config=, or one with a dataset_config alone")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="as on mmf_run's command line")
    top.add_argument("--dataset", metavar="NAME", help="one dataset of the recipe (all of them)")
    top.add_argument("--split", default="train", choices=("train", "val", "test"), help="%(default)s")
    top.add_argument("--samples", type=int, default=24, metavar="N", help="samples shown of each (%(default)s)")
    top.add_argument("--start", type=int, default=0, metavar="N", help="position in the stream of the first (0)")
    top.add_argument("--statistics", type=int, default=2000, metavar="N", help="records measured (%(default)s)")
    top.add_argument("--out", type=Path, metavar="FILE", help="the page (show_RECIPE.html in this folder)")
    return top


def run(arguments: argparse.Namespace) -> None:
    for name in ("samples", "statistics"):
        positive(getattr(arguments, name), f"--{name}")
    if arguments.start < 0:
        raise UserError(f"--start is {arguments.start}; the stream starts at 0.")
    config = read_recipe(arguments.recipe, [*arguments.overrides, *_missing(arguments.recipe, arguments.overrides)])
    names = [arguments.dataset] if arguments.dataset else dataset_names(config)
    paths = {name: _paths(config, name, arguments.split) for name in names}
    if not any(paths.values()):
        raise UserError(
            f"{arguments.recipe} lists no data for the split {arguments.split} of {', '.join(names)}: fill in "
            f"dataset_config.{names[0]}.splits.{arguments.split}, or choose another --split."
        )
    sections = [_section(config, name, listed, arguments) for name, listed in paths.items() if listed]
    stem = Path(arguments.recipe).stem
    out = arguments.out or Path(f"show_{stem}.html")
    _write(out, render(stem, arguments.split, sections, [name for name in names if not paths[name]]))
    figures = ", ".join(f"{section.name} {section.size:,} {section.unit}" for section in sections)
    bad = sum(section.bad_records for section in sections)
    print(f"{out}: {arguments.split}: {figures}; {bad} bad of {sum(s.looked_at for s in sections):,} looked at.")


def _missing(recipe: str, overrides: Sequence[str]) -> list[str]:
    """What MMF needs beside a ``dataset_config``, for a YAML that has nothing else."""
    setup_imports()
    content = load_yaml(recipe)
    named = {override.partition("=")[0] for override in overrides} | set(content)
    found = [] if "model" in named else ["model=flava"]
    if content.get("dataset_config") and not named & {"dataset", "datasets"}:
        found.append(f"dataset={','.join(content.dataset_config)}")
    return found


def _paths(config: Any, name: str, split: str) -> list[str | Path]:
    """What a dataset lists for a split; nothing where it is not one of ours, whose data this command cannot show."""
    section, builder = dataset_section(config, name), registry.get_builder_class(name)
    return builder.paths(section, split) if builder and issubclass(builder, StreamBuilder) else []


def _section(config: Any, name: str, paths: list[str | Path], arguments: argparse.Namespace) -> Section:
    dataset = open_dataset(config, name, arguments.split)
    cards, trouble = _cards(dataset, arguments.start, arguments.samples)
    return make_section(dataset, paths, cards, trouble, measure(dataset, arguments.statistics))


def _cards(dataset: StreamDataset, start: int, count: int) -> tuple[list[Card], str | None]:
    """Cards of at most one epoch, up to the first that cannot be made, and why it cannot."""
    cards: list[Card] = []
    try:
        for number in range(start, start + min(count, len(dataset))):
            cards.append(make_card(dataset, number))
    except UserError as error:
        return cards, str(error)
    return cards, None


def _write(path: Path, page: str) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)  # a reader never meets half a page
    except OSError as error:
        raise UserError(
            f"The page cannot be written to {path} ({error.strerror}): name another place with --out FILE.html."
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(parser().parse_intermixed_args(arguments))  # options and key=value in any order
    except UserError as error:
        print(f"mmf_flava: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
