"""MMF's own datasets: images if the recipe requests them, and errors for missing files."""

import importlib
import resource
import sys
from types import ModuleType

import pytest
import torch
from mmf.datasets.builders.hateful_memes import builder
from mmf.datasets.builders.visual_entailment.dataset import VisualEntailmentDataset
from mmf.datasets.builders.vqa2.dataset import VQA2Dataset
from mmf.utils.download import DownloadableFile
from omegaconf import OmegaConf

from mmf_flava.compat.patch import PATCHES
from mmf_flava.errors import UserError
from tests.mmf_versions import needs_main, needs_rc10


class ImageDatabase:
    """MMF's image database, with the index as the image."""

    transform = None

    def __getitem__(self, index):
        return {"images": [self.transform(index)]}


ROWS = [
    {"question_str": "what", "question_tokens": ["what"], "question_id": 7, "image_id": 1}
    | {"sentence2": "a dog", "gold_label": "neutral", "Flikr30kID": "1.jpg"}
]


def dataset(kind, use_images, processors):
    built = object.__new__(kind)
    built.config = OmegaConf.create({"data_dir": ".", "processors": {}})
    built._dataset_name, built._dataset_type = "toy", "train"
    built.annotation_db, built.image_db = ROWS, ImageDatabase()
    built._use_images, built._use_features, built._should_fast_read = use_images, False, False
    built.use_ocr = built.use_ocr_info = False
    built.text_processor = lambda item: {"text": item["text"]}
    vars(built).update(processors)
    built.init_processors()
    return built


@needs_rc10
@pytest.mark.parametrize("kind", [VQA2Dataset, VisualEntailmentDataset])
def test_use_images_adds_images(kind):
    processors = {"image_processor": lambda index: torch.full((3, 2, 2), index + 5.0)}
    assert dataset(kind, True, processors)[0].image.equal(torch.full((3, 2, 2), 5.0))
    assert "image" not in dataset(kind, False, processors)[0]


@needs_rc10
@pytest.mark.parametrize("kind", [VQA2Dataset, VisualEntailmentDataset])
def test_recipe_without_image_processor_has_no_images(kind):
    assert "image" not in dataset(kind, True, {})[0]


@needs_main
@pytest.mark.parametrize("name", ["vqa2", "visual_entailment"])
def test_patch_is_not_needed_on_main(name):
    module = importlib.import_module(f"mmf.datasets.builders.{name}.dataset")
    (images,) = [patch for patch in PATCHES[module.__name__] if "use_images" in patch.what]
    assert not images.needed(module)


def test_failed_download_is_an_error(own_run, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = DownloadableFile("http://127.0.0.1:9/annotations.zip", "annotations.zip")  # a closed port
    with pytest.raises(
        UserError, match=r"annotations\.zip was not found in .* could not be downloaded from http://127"
    ) as raised:
        file.download_file(str(tmp_path))
    assert str(tmp_path) in str(raised.value)
    for remedy in ("dataset_config.NAME (for a dataset)", "checkpoint.resume_file (for a checkpoint)"):
        assert remedy in str(raised.value)


def test_failed_download_of_other_runs_raises_mmfs_error(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = DownloadableFile("http://127.0.0.1:9/annotations.zip", "annotations.zip")
    with pytest.raises(Exception) as raised:
        file.download_file(str(tmp_path))
    assert not isinstance(raised.value, UserError)


def test_missing_hateful_memes_is_an_error(own_run, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "get_mmf_env", lambda key: str(tmp_path))
    folder = tmp_path / "datasets" / "hateful_memes" / "defaults" / "annotations"
    with pytest.raises(UserError, match=f"Hateful Memes: {folder} does not contain train.jsonl"):
        builder.HatefulMemesBuilder().build({})


@needs_main
def test_glue_of_main_names_its_package(own_run, monkeypatch):
    glue = importlib.import_module("mmf.datasets.builders.glue.builder")
    config = OmegaConf.create({"task": "sst2"})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"glue_sst2 requires the package datasets\. Run pip install datasets"):
        glue.GLUEDataset(config, "train", 0)

    def offline(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    hub = ModuleType("datasets")
    hub.load_dataset = offline
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr(glue, "MAX_RETRIES", 0)
    with pytest.raises(UserError, match=r"glue_sst2 could not be downloaded from .* Hub \(ConnectionError: no route"):
        glue.GLUEDataset(config, "train", 0)


def test_workers_without_open_files_are_refused(own_run, monkeypatch):
    module = importlib.import_module("mmf.utils.build")
    monkeypatch.setattr(resource, "getrlimit", lambda name: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda name, limits: None)
    with pytest.raises(UserError, match=r"training\.num_workers: 2 data loader workers need about \d+ open files"):
        module.build_dataloader_and_sampler(None, OmegaConf.create({"num_workers": 2, "pin_memory": False}))
