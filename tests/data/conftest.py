"""Fixtures: the demo data, built once per session, and a small configuration of the three datasets on them."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmf_flava.data.prepare.demo import prepare_demo
from tests.data.own_toys import own  # noqa: F401 (a fixture)

DATASETS = Path(__file__).resolve().parents[2] / "projects/flava/configs/datasets"
NAMES = ("pmd", "imagenet", "ccnews_bookcorpus")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "data"
    prepare_demo(out, progress=False)
    return out


@pytest.fixture
def config(demo: Path) -> Any:
    """The default YAML files with the demo's paths and small sizes: a 6 x 6 patch grid and texts of 16 tokens."""
    image = {"params": {"image_size": 24, "patch_size": 4, "codebook_size": 24, "mask": {"target": 14, "min_block": 4}}}
    text = {"params": {"tokenizer": "tokenizer"}}
    splits = {
        "pmd": {split: [f"pairs/{split}"] for split in ("train", "val", "test")},
        "imagenet": {split: [f"images/{split}"] for split in ("train", "val")},
        "ccnews_bookcorpus": {split: [f"text/{split}"] for split in ("train", "val")},
    }
    sections: dict[str, Any] = {
        name: {"data_dir": str(demo), "splits": splits[name], "processors": {}} for name in NAMES
    }
    sections["ccnews_bookcorpus"]["block_size"] = 16
    for name in ("pmd", "imagenet"):
        sections[name]["processors"]["image_processor"] = image
    for name in ("pmd", "ccnews_bookcorpus"):
        sections[name]["processors"]["text_processor"] = text
    defaults = [OmegaConf.load(DATASETS / f"{name}.yaml") for name in NAMES]
    return OmegaConf.merge({"env": {"data_dir": str(demo)}}, *defaults, {"dataset_config": sections})


@pytest.fixture
def current_config() -> None:
    """Register a current MMF configuration; strategies of MMF's main branch read ``training`` and ``datasets``."""
    from mmf.common.registry import registry

    registry.register("config", OmegaConf.create({"training": {}, "datasets": "a,b,c"}))


@pytest.fixture
def load(config: Any) -> Any:
    """A function ``load(name, split)`` that uses the registered builder, as MMF does, and new processors."""
    from mmf.common.registry import registry

    from mmf_flava.data import imagenet, pmd, processors, text_corpus  # noqa: F401 (imported to register the builders)

    def load(name: str, split: str = "train") -> Any:
        for key in ("image_processor", "text_processor"):
            registry.unregister(f"{name}_{key}")
        builder = registry.get_builder_class(name)()
        builder.build_dataset(config.dataset_config[name], split)
        return builder.load_dataset(config.dataset_config[name], split)

    return load
