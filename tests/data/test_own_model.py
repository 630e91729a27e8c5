"""docs/own_model.md: a user's model trains on FLAVA's datasets with every trainer and with other processors."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor
from mmf_cli.run import run as mmf_run
from omegaconf import OmegaConf

from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.errors import UserError

DOCUMENT = (Path(__file__).parents[2] / "docs/own_model.md").read_text()
MMF_TRAINER = {"rc10": "base_trainer", "main": "mmf"}[MMF_VERSION]
CROPS = {"type": "RandomResizedCrop", "params": {"size": [16, 16]}}
TRANSFORMS = {"type": "torchvision_transforms", "params": {"transforms": [CROPS, "ToTensor"]}}
CODEBOOK = "processors.image_processor.params.codebook_size"


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL).group(1)


@registry.register_processor("lengths")
class Lengths(BaseProcessor):
    """A user's text processor: the lengths of three words, one of them at random."""

    def __init__(self, config, *args, **kwargs):
        pass

    def __call__(self, item, *args, **kwargs):
        words = item["text"].split()
        return {"input_ids": torch.tensor([len(words[0]), len(words[-1]), len(random.choice(words))])}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_model") / "my_project"
    folder.mkdir()
    (folder / "__init__.py").write_text(block("python"))
    return folder


@pytest.fixture
def recipe(tmp_path, demo, project):
    """Return ``recipe(dataset, **section)``, which writes the documented recipe with a section of the dataset."""

    def write(dataset="pmd", model_config=None, **section):
        for name in ("config", f"{dataset}_image_processor", f"{dataset}_text_processor"):
            registry.unregister(name)
        content = yaml.safe_load(block("yaml"))
        folder = {"pmd": "pairs", "ccnews_bookcorpus": "text"}.get(dataset, "images")
        splits = {"train": [f"{folder}/train"], "val": [f"{folder}/val"]}
        content |= {
            "dataset": dataset,
            "dataset_config": {dataset: {"data_dir": str(demo), "splits": splits, **section}},
        }
        content["env"] = {"user_dir": str(project), "save_dir": str(tmp_path / "run")}
        content["model_config"] = {"matcher": {**content["model_config"]["matcher"], **(model_config or {})}}
        content["training"] |= {"batch_size": 8, "max_updates": 3, "num_workers": 0, "seed": 1, "tensorboard": False}
        path = tmp_path / "matcher.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize("trainer", ["flava", MMF_TRAINER])
def test_documented_model_trains_on_pairs(recipe, tmp_path, trainer):
    image = {"params": {"image_size": 32, "mask": None}}
    path = recipe(processors={"image_processor": image, "text_processor": {"params": {"tokenizer": "tokenizer"}}})
    options = (f"training.trainer={trainer}", "training.log_interval=1", "training.num_workers=2", "run_type=train_val")
    mmf_run([f"config={path}", *options])
    logs = "".join(file.read_text() for file in (tmp_path / "run").rglob("*.log"))
    losses = [float(value) for value in re.findall(r"\bmatching:? ([\d.]+)", logs)]
    assert len(losses) >= 4 and all(0 < loss < 10 for loss in losses), "three updates and a validation"


def test_documented_model_classifies_images_with_transforms_of_mmf(recipe, tmp_path):
    processors = {"image_processor": TRANSFORMS}
    path = recipe(
        "image_classification", {"num_labels": 24, "losses": [{"type": "cross_entropy"}]}, processors=processors
    )
    mmf_run([f"config={path}", "evaluation.metrics=[accuracy]", "run_type=train_val"])
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 <= evaluation["metrics"]["accuracy"] <= 1 and evaluation["losses"]["cross_entropy"] > 0


@pytest.mark.parametrize("dataset", ["pmd", "imagenet"])
def test_sizes_are_those_of_the_model_or_of_flava(recipe, dataset):
    sizes = ("image_size", "patch_size", "codebook_size")

    def read(model, *options):
        params = (
            read_recipe(str(recipe(dataset, model)), options).dataset_config[dataset].processors.image_processor.params
        )
        return [params[name] for name in sizes]

    assert read({}) == [224, 16, None]
    assert read({}, f"dataset_config.{dataset}.{CODEBOOK}=112") == [224, 16, 112]
    assert read({"image_encoder": {"image_size": 64, "patch_size": 8}}) == [64, 8, None]


def test_other_processors_get_mmfs_items_and_seeded_generators(config, load):
    config.dataset_config.pmd.processors = {"image_processor": TRANSFORMS, "text_processor": {"type": "lengths"}}
    dataset = load("pmd")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = [dataset[n] for n in range(4)]
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    random.seed(5)
    torch.manual_seed(5)
    again = [dataset[n] for n in range(4)]
    for field in ("image", "input_ids"):
        assert all(torch.equal(first[n][field], again[n][field]) for n in range(4))
    batch = dataset.collate(first)
    assert batch.image.shape == (4, 3, 16, 16) and batch.input_ids.shape == (4, 3)
    assert "mask_counts" not in batch and batch.targets.shape == (4,)


def test_processors_that_cannot_serve_are_errors(config, load, tmp_path):
    config.dataset_config.ccnews_bookcorpus.processors = {"text_processor": {"type": "lengths"}}
    with pytest.raises(
        UserError, match=r"^dataset_config\.ccnews_bookcorpus\.processors\.text_processor\.type: .* Set"
    ):
        load("ccnews_bookcorpus")
    config.dataset_config.pmd = OmegaConf.merge(config.dataset_config.pmd, {"codes": "dvae"})
    config.dataset_config.pmd.processors.image_processor = TRANSFORMS
    with pytest.raises(UserError, match=r"^dataset_config\.pmd\.codes: .* Remove codes, or set"):
        load("pmd")
