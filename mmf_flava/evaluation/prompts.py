"""Class names and prompt templates, from open_clip, CLIP_benchmark or a file.

The prompts ``imagenet`` are CLIP's 1,000 edited class names and 80 templates, as shipped with open_clip. All others are
CLIP_benchmark's English prompt sets (cifar10, food101, ...) or aliases from ``ALIASES``. Only the data files of both
packages are read; the packages are not imported, because that is slow. Some of CLIP_benchmark's sets have templates
only; the class names are then taken from the dataset.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mmf_flava.config.paths import resolve_path
from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.config.schema import suggestion
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_object

SECTION = "evaluation.zero_shot"
# name of a dataset of the paper -> its name in CLIP_benchmark
ALIASES = {
    "aircraft": "fgvc_aircraft",
    "clevr": "clevr_count_all",
    "flowers102": "flowers",
    "kitti": "kitti_closest_vehicle_distance",
    "sst": "renderedsst2",
}
NUMBERS = re.compile(r"([0-9]+)|([^0-9]+)")
MAX_SHOWN = 3  # maximum number of invalid entries listed in an error message


@dataclass
class Prompts:
    """Class names in label order, and templates with ``{}`` as placeholder for the name; either list may be empty."""

    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)


def resolve_prompts(
    config: ZeroShotConfig, datasets: Mapping[str, Mapping[str, Any]], stored: Sequence[str] = ()
) -> ZeroShotConfig:
    """Return ``config`` with its class names and templates filled in.

    They are taken from ``classes`` and ``templates``, otherwise from ``classes_file``, otherwise from ``prompts``. If
    none of these has class names, the dataset's class names are used, otherwise ``stored``.

    Args:
        datasets: split name -> dataset name -> dataset; a dataset may have the attribute ``classes``: class names
            in label order.
        stored: class names stored with the weights, in label order.

    Raises:
        UserError: the prompts are unknown, a package or file is missing, there are no class names, or the class names
            do not match the dataset's labels.
    """
    file = Prompts() if config.classes_file is None else load_prompts_file(config.classes_file)
    classes, templates = config.classes or file.classes, config.templates or file.templates
    candidates = [split[config.dataset] for split in datasets.values() if config.dataset in split]
    label_names: Sequence[str] = next((names for data in candidates if (names := getattr(data, "classes", None))), [])
    label_names = label_names or (stored if not classes and config.prompts is None else [])
    if config.prompts is not None and not (classes and templates):
        packaged = load_packaged_prompts(config.prompts)
        classes, templates = classes or packaged.classes, templates or packaged.templates
    if candidates and templates and not (classes or label_names):
        raise UserError(
            f"{SECTION}: no class names are configured, and dataset '{config.dataset}' has none. Set "
            f"{SECTION}.classes or classes_file."
        )
    if classes and label_names:
        _check_classes(classes, label_names, config.dataset)
    return replace(config, classes=classes or [readable_name(name) for name in label_names], templates=templates)


def load_packaged_prompts(name: str) -> Prompts:
    """Load the prompts ``name`` from open_clip or CLIP_benchmark.

    Raises:
        UserError: the package is not installed, or it has no prompts of this name.
    """
    if name == "imagenet":
        return _load_imagenet()
    folder = _find_package("clip_benchmark", "clip-benchmark") / "datasets"
    classes, templates = (
        parse_object((folder / f"en_{kind}.json").read_bytes())
        for kind in ("classnames", "zeroshot_classification_templates")
    )
    key = ALIASES.get(name, name)
    if key not in templates:
        raise UserError(f"{SECTION}.prompts: unknown prompts '{name}'.{suggestion(name, [*templates, *ALIASES])}")
    return Prompts(classes.get(key, []), [template.replace("{c}", "{}") for template in templates[key]])


def _load_imagenet() -> Prompts:
    path = _find_package("open_clip", "open_clip_torch") / "zero_shot_metadata.py"
    spec = spec_from_file_location("open_clip_zero_shot_metadata", path)
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    templates = [template("{}") for template in module.OPENAI_IMAGENET_TEMPLATES]
    return Prompts(list(module.IMAGENET_CLASSNAMES), templates)


def _find_package(module: str, wheel: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{SECTION}.prompts: package {wheel} is not installed. Run `pip install {wheel}`, or "
            f"`pip install --no-deps {wheel}` to skip its dependencies. Alternatively, set classes and templates."
        )
    return Path(spec.origin).parent


def load_prompts_file(path: str) -> Prompts:
    """Load a text file with one class per line, or a JSON file {"classes": [...], "templates": [...]}."""
    file = resolve_path(path)
    try:
        lines = read_lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{SECTION}.classes_file: failed to read {file} ({error}). Check the path.") from None
    if file.suffix.lower() != ".json":
        return Prompts([line.strip() for line in lines if line.strip()])
    try:
        data = parse_object("\n".join(lines))
        lists = [data[key] for key in ("classes", "templates") if key in data]
        if not all(_is_string_list(names) for names in lists):
            raise ValueError("expected lists of strings")
    except ValueError as error:
        raise UserError(
            f'{SECTION}.classes_file: {file} must be JSON {{"classes": [...], "templates": [...]}}: {error}.'
        ) from None
    return Prompts(data.get("classes", []), data.get("templates", []))


def _is_string_list(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def readable_name(name: str) -> str:
    """Convert a dataset's class name to plain text, e.g. ``apple_pie`` to "apple pie"."""
    return name.replace("_", " ").replace("/", " ").strip()


def _check_classes(classes: Sequence[str], label_names: Sequence[str], dataset: str) -> None:
    """Raise UserError if the number or the order of the classes differs from the dataset's labels."""
    if len(classes) != len(label_names):
        longer, template = (
            (label_names, "no class for label {} ({!r})")
            if len(label_names) > len(classes)
            else (classes, "no label {} ({!r})")
        )
        shorter = min(len(label_names), len(classes))
        unmatched = [template.format(index, longer[index]) for index in range(shorter, len(longer))]
        raise UserError(
            f"{SECTION} has {len(classes)} classes, but dataset '{dataset}' has {len(label_names)}: "
            f"{_join_shown(unmatched)}. List one class per label, in label order."
        )
    normalised = [_normalise(name) for name in label_names]
    label_of = {name: label for label, name in enumerate(normalised) if normalised.count(name) == 1}
    misplaced = [
        f"class {index} is {name!r}, which is label {label_of[_normalise(name)]}"
        for index, name in enumerate(classes)
        if label_of.get(_normalise(name), index) != index
    ]
    folders = list(label_names)
    matched = any(_normalise(name) in normalised for name in classes)
    if not matched and folders == sorted(folders) and folders != sorted(folders, key=_numeric_order):
        raise UserError(
            f"{SECTION}: the labels of dataset '{dataset}' are its class folders in alphabetical order ("
            f"{_join_shown(folders)}), which is not their numeric order, and none of the classes has the name of a "
            f"folder. Use the folder names as class names, or list the folders in dataset_config.{dataset}.classes."
        )
    if misplaced:
        raise UserError(
            f"{SECTION}: the classes are not in the label order of dataset '{dataset}': {_join_shown(misplaced)}. List "
            "them in label order."
        )


def _numeric_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders names by the numbers in them, e.g. "9" before "10"."""
    return [(int(digits or 0), text) for digits, text in NUMBERS.findall(name)]


def _normalise(name: str) -> str:
    return readable_name(name).lower()


def _join_shown(entries: Sequence[str]) -> str:
    more = len(entries) - MAX_SHOWN
    return ", ".join(entries[:MAX_SHOWN]) + (f", and {more} more" if more > 0 else "")
