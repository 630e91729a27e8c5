"""No YAML file of the recipes sets a key of a dataset or processor to its default."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmf_flava.config.datasets import GlueConfig, ImageNetConfig, KarpathyConfig, PMDConfig, TextCorpusConfig
from mmf_flava.config.labelled_datasets import ImageClassificationConfig, ImageTextClassificationConfig
from mmf_flava.config.processors import (
    ImageProcessorConfig,
    ImageTransformConfig,
    MulticropConfig,
    TextProcessorConfig,
    TokensConfig,
)

CONFIGS = Path(__file__).parents[2] / "projects/flava/configs"
DATASETS = {
    "pmd": PMDConfig,
    "imagenet": ImageNetConfig,
    "ccnews_bookcorpus": TextCorpusConfig,
    "image_classification": ImageClassificationConfig,
    "image_text_classification": ImageTextClassificationConfig,
    "karpathy": KarpathyConfig,
    "glue": GlueConfig,
}
PROCESSORS = {
    "flava_image": ImageProcessorConfig,
    "flava_text": TextProcessorConfig,
    "flava_image_transform": ImageTransformConfig,
    "flava_multicrop": MulticropConfig,
    "flava_tokens": TokensConfig,
}


def defaults(schema: type) -> dict[str, Any]:
    """Return the defaults of a config class; keys without a default are omitted."""
    found = {}
    for field in fields(schema):
        if field.default is not MISSING and field.default != "???":
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
            found[field.name] = defaults(type(value)) if is_dataclass(value) else value
    return found


def repeated(section: Any, default: Any, key: str) -> Iterator[str]:
    """Yield the keys of ``section`` whose value is the default."""
    if isinstance(section, dict) and isinstance(default, dict):
        for name, value in section.items():
            if name in default:
                yield from repeated(value, default[name], f"{key}.{name}")
    elif section == default:
        yield key


def repeated_defaults(path: Path) -> list[str]:
    """Return the keys of ``dataset_config`` in a YAML file whose value is the default."""
    found: list[str] = []
    content = yaml.safe_load(path.read_text()) or {}
    for name, section in (content.get("dataset_config") or {}).items():
        if name in DATASETS:
            found += repeated(section, defaults(DATASETS[name]), name)
        default_types = {"image_processor": "flava_image", "text_processor": "flava_text"}
        for key, entry in (section.get("processors") or {}).items():
            entry = entry or {}
            is_unmasked = name in ("glue", "image_text_classification") and key == "text_processor"
            kind = entry.get("type", "flava_tokens" if is_unmasked else default_types.get(key))
            if kind in PROCESSORS:
                found += repeated(entry.get("params") or {}, defaults(PROCESSORS[kind]), f"{name}.{key}.params")
    return found


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_yaml_sets_no_key_to_its_default(path):
    assert repeated_defaults(path) == []


def test_repeated_defaults_are_found(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "dataset_config: {pmd: {views: null, max_bad_share: 0.5, splits: {val: null}, processors: {image_processor: "
        "{type: flava_image, params: {patch_size: 16, mask: {exact: false, target: 3}}}}}}"
    )
    assert repeated_defaults(tmp_path / "a.yaml") == [
        "pmd.views",
        "pmd.splits.val",
        "pmd.image_processor.params.patch_size",
        "pmd.image_processor.params.mask.exact",
    ]


def test_every_dataset_and_processor_is_covered():
    from mmf.common.registry import registry

    from mmf_flava import plugin  # noqa: F401 (registers them)

    for kind, known in (("builder", DATASETS), ("processor", PROCESSORS)):
        ours = {
            name: found.CONFIG
            for name, found in registry.mapping[f"{kind}_name_mapping"].items()
            if found.__module__.startswith("mmf_flava.")
        }
        assert ours == known
