"""The demo's data, built once, and a configuration of the three datasets on them at toy size."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmf_flava.data.prepare.demo import build_demo

DATASETS = Path(__file__).resolve().parents[2] / "projects/flava/configs/datasets"
NAMES = ("pmd", "imagenet", "ccnews_bookcorpus")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "data"
    build_demo(out, progress=False)
    return out


@pytest.fixture
def config(demo: Path) -> Any:
    """The YAML files as they are, with the demo's paths and sizes over them; grid 6 x 6, texts of 16 tokens."""
    image = {"params": {"codebook_size": 24, "mask": {"target": 14, "min_block": 4}}}
    text = {"params": {"tokenizer": "tokenizer"}}
    splits = {
        "pmd": {split: [f"pairs/{split}"] for split in ("train", "val", "test")},
        "imagenet": {split: [f"images/{split}"] for split in ("train", "val")},
        "ccnews_bookcorpus": {split: [f"text/{split}"] for split in ("train", "val")},
    }
    own: dict[str, Any] = {name: {"data_dir": str(demo), "splits": splits[name], "processors": {}} for name in NAMES}
    own["ccnews_bookcorpus"]["block_size"] = 16
    for name in ("pmd", "imagenet"):
        own[name]["processors"]["image_processor"] = image
    for name in ("pmd", "ccnews_bookcorpus"):
        own[name]["processors"]["text_processor"] = text
    defaults = [OmegaConf.load(DATASETS / f"{name}.yaml") for name in NAMES]
    encoder = {"image_size": 24, "patch_size": 4}
    return OmegaConf.merge(
        {"env": {"data_dir": str(demo)}, "model_config": {"flava": {"image_encoder": encoder}}},
        *defaults,
        {"dataset_config": own},
    )


@pytest.fixture
def current_config() -> None:
    """MMF's current configuration, in which strategies of its main branch look ``training`` and ``datasets`` up."""
    from mmf.common.registry import registry

    registry.register("config", OmegaConf.create({"training": {}, "datasets": "a,b,c"}))


@pytest.fixture
def load(config: Any) -> Any:
    """``load(name, split)`` through the registered builder, as MMF does it, with fresh processors."""
    from mmf.common.registry import registry

    from mmf_flava.data import imagenet, pmd, processors, text_corpus  # noqa: F401 (they register)

    def load(name: str, split: str = "train") -> Any:
        for key in ("image_processor", "text_processor"):
            registry.unregister(f"{name}_{key}")
        builder = registry.get_builder_class(name)()
        builder.build_dataset(config.dataset_config[name], split)
        return builder.load_dataset(config.dataset_config[name], split)

    return load
