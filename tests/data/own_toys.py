"""Toy data of a user in the formats of ``image_text_classification``, and a loader of its splits."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.data import image_text_classification, processors, unmasked  # noqa: F401 (they register)

DATASETS = Path(__file__).resolve().parents[2] / "projects/flava/configs/datasets"

NAME = "image_text_classification"
WORDS = ("red", "green", "blue", "box", "cup")


def write_image(path: Path, value: int) -> str:
    """Write an image of 8 x 8 pixels whose colour is determined by a value, and return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value % 256, value // 256 % 256, 7)
    Image.fromarray(np.full((8, 8, 3), colour, dtype=np.uint8)).save(path)
    return path.name


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_own(folder: Path, labels: Sequence[Any], name: str = "my.csv") -> Path:
    """Write a table of as many images and titles as labels."""
    rows = [(write_image(folder / f"{n}.png", n), f"a {WORDS[n % 3]} box", label) for n, label in enumerate(labels)]
    return write_csv(folder / name, ["image", "title", "label"], rows)


@pytest.fixture
def own(tmp_path) -> Iterator[Callable[..., Any]]:
    """Return ``own("train", key=value, ...)``, which loads a split of data_dir (default: ``my.csv``) in a toy run.

    ``run`` are keys of the run's config. Splits that are loaded with equal arguments belong to one run.
    """
    vocabulary = tmp_path / "words"
    vocabulary.mkdir()
    (vocabulary / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", *WORDS]) + "\n")
    runs: dict[str, Any] = {}

    def own(split: str, run: dict[str, Any] | None = None, **section: Any) -> Any:
        key = repr((run, section))
        if key not in runs:
            defaults = OmegaConf.load(DATASETS / f"{NAME}.yaml").dataset_config[NAME]
            toy = {"image_processor": {"params": {"image_size": 8, "patch_size": 4}}}
            toy["text_processor"] = {"params": {"tokenizer": str(vocabulary), "max_length": 8}}
            given = {"data_dir": str(tmp_path / "my.csv"), "processors": toy}
            model = {"flava_classification": {"num_labels": None, "losses": None}}
            config = {"model": "flava_classification", "model_config": model, "run_type": "train_val_test"}
            runs[key] = (
                OmegaConf.merge(defaults, given, section),
                OmegaConf.merge(config, {"evaluation": {"metrics": None}}, run or {}),
            )
        section_config, run_config = runs[key]
        registry.register("config", run_config)
        for processor in ("image_processor", "text_processor"):
            registry.unregister(f"{NAME}_{processor}")
        dataset = registry.get_builder_class(NAME)().load_dataset(section_config, split)
        if dataset is not None:
            dataset.run = run_config
        return dataset

    yield own
    registry.unregister("config")


def keys(dataset: Any) -> list[str]:
    """Return the keys of a split's records."""
    return [dataset.records.read(n, ()).key for n in range(dataset.size)]
