"""Labelled images for the tests: the dataset image_classification, class folders and lists."""

import json
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.data import image_classification  # noqa: F401 (it registers)
from tests.data.conftest import DATASETS
from tests.data.image_sets.published import save

NAME = "image_classification"


def load_labelled(folder: Path, demo: Path, split: str = "test", **section: Any) -> Any:
    """Load a split through the registered builder, with the demo's tokenizer and images of 24 x 24 pixels."""
    defaults = OmegaConf.load(DATASETS / f"{NAME}.yaml")
    overrides = {
        "data_dir": str(folder),
        "processors": {
            "image_processor": {"params": {"image_size": 24, "patch_size": 6}},
            "text_processor": {"params": {"tokenizer": str(demo / "tokenizer")}},
        },
    }
    datasets_section = {"dataset_config": {NAME: {**overrides, **section}}}
    config = OmegaConf.merge(defaults, datasets_section).dataset_config[NAME]
    for key in ("image_processor", "text_processor"):
        registry.unregister(f"{NAME}_{key}")
    builder = registry.get_builder_class(NAME)()
    builder.build_dataset(config, split)
    return builder.load_dataset(config, split)


def write_folders(root, *names, images=1):
    for name in names:
        for number in range(images):
            save(root / name / f"{number}.png", number)


def write_list(path, *labels):
    """Write a list of images of one folder; a label of ... is omitted."""
    save(path.parent / "1.png", 0)
    rows = [{"image": "1.png", "id": n} | ({} if label is ... else {"label": label}) for n, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
