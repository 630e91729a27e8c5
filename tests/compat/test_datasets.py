"""MMF's own datasets, mended: pictures where the recipe asks for them, and names of what is not there."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from mmf.datasets.builders.hateful_memes import builder
from mmf.datasets.builders.visual_entailment.dataset import VisualEntailmentDataset
from mmf.datasets.builders.vqa2.dataset import VQA2Dataset
from mmf.utils.download import DownloadableFile
from omegaconf import OmegaConf

from mmf_flava.compat.cure import CURES
from mmf_flava.errors import UserError
from tests.lines import needs_main, needs_rc10


class Pictures:
    """Stands for MMF's image database."""

    transform = None

    def __getitem__(self, index):
        return {"images": [self.transform(index)]}


ROWS = [
    {"question_str": "what", "question_tokens": ["what"], "question_id": 7, "image_id": 1}
    | {"sentence2": "a dog", "gold_label": "neutral", "Flikr30kID": "1.jpg"}
]


def dataset(kind, use_images, processors):
    made = object.__new__(kind)
    made.config = OmegaConf.create({"data_dir": ".", "processors": {}})
    made._dataset_name, made._dataset_type = "toy", "train"
    made.annotation_db, made.image_db = ROWS, Pictures()
    made._use_images, made._use_features, made._should_fast_read = use_images, False, False
    made.use_ocr = made.use_ocr_info = False
    made.text_processor = lambda item: {"text": item["text"]}
    vars(made).update(processors)
    made.init_processors()
    return made


@needs_rc10
@pytest.mark.parametrize("kind", [VQA2Dataset, VisualEntailmentDataset])
def test_use_images_brings_images(kind):
    processors = {"image_processor": lambda index: torch.full((3, 2, 2), index + 5.0)}
    assert dataset(kind, True, processors)[0].image.equal(torch.full((3, 2, 2), 5.0))
    assert "image" not in dataset(kind, False, processors)[0]


@needs_rc10
@pytest.mark.parametrize("kind", [VQA2Dataset, VisualEntailmentDataset])
def test_a_recipe_without_an_image_processor_works_as_before(kind):
    assert "image" not in dataset(kind, True, {})[0]


@needs_main
@pytest.mark.parametrize("name", ["vqa2", "visual_entailment"])
def test_main_reads_pictures_itself(name):
    module = importlib.import_module(f"mmf.datasets.builders.{name}.dataset")
    (images,) = CURES[module.__name__]
    assert not images.needed(module)


def test_a_file_that_cannot_be_downloaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = DownloadableFile("http://127.0.0.1:9/annotations.zip", "annotations.zip")  # nobody listens there
    with pytest.raises(UserError, match=r"annotations\.zip is not in .* cannot be had from http://127") as raised:
        file.download_file(str(tmp_path))
    assert str(tmp_path) in str(raised.value)


def test_hateful_memes_are_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "get_mmf_env", lambda key: str(tmp_path))
    folder = tmp_path / "datasets" / "hateful_memes" / "defaults" / "annotations"
    with pytest.raises(UserError, match=f"not in {folder}: looked for train.jsonl"):
        builder.HatefulMemesBuilder().build({})


@needs_main
def test_mains_glue_says_what_it_is_read_by(monkeypatch):
    glue = importlib.import_module("mmf.datasets.builders.glue.builder")
    config = OmegaConf.create({"task": "sst2"})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="glue_sst2 is read by the package datasets, which is not installed"):
        glue.GLUEDataset(config, "train", 0)

    def offline(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    hub = ModuleType("datasets")
    hub.load_dataset = offline
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr(glue, "MAX_RETRIES", 0)
    with pytest.raises(UserError, match=r"glue_sst2 cannot be had from the hub .*no route"):
        glue.GLUEDataset(config, "train", 0)
