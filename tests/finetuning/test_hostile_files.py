"""Files with pickled code in finetuning on MMF's datasets: nothing is executed, and one sentence names the file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmf.datasets.databases.annotation_database import AnnotationDatabase

from mmf_flava.compat import flava_run
from mmf_flava.errors import UserError
from tests.files.hostile_pickles import Canary
from tests.files.test_plain_pickle import assert_same
from tests.finetuning import toys

FEW = ("training.max_updates=1", "training.evaluation_interval=1", "training.batch_size=4", "training.num_workers=0")
WEIGHTS = "model_config.flava_classification.pretrained"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """``env.data_dir`` with few samples of two datasets of MMF."""
    folder = tmp_path_factory.mktemp("data")
    toys.write_tokenizer(folder / "flava_demo" / "tokenizer")
    toys.write_vqa2(folder, {"train2014": 8, "val2014": 4, "test2015": 4})
    toys.write_hateful_memes(folder, {"train": 8, "dev": 4, "test": 4})
    return folder


@pytest.fixture
def canary(tmp_path):
    """An object that creates a folder when it is unpickled; the test fails if the folder exists at its end."""
    yield Canary(tmp_path / "mark")
    assert not (tmp_path / "mark").exists()


def test_imdb_gives_the_same_samples_as_unpickling(data, monkeypatch):
    monkeypatch.setattr(flava_run, "_current", True)
    for split in ("train2014", "val2014", "test2015"):
        path = data / "datasets" / "vqa2" / "defaults" / "annotations" / f"imdb_{split}.npy"
        database = AnnotationDatabase({}, str(path))
        assert_same(database.data, np.load(path, allow_pickle=True))
        assert len(database) == len(database.data) - 1 and database.start_idx == 1


def test_code_in_an_imdb(finetune, data, canary, tmp_path):
    path = tmp_path / "imdb_hostile.npy"
    rows = [{"version": 1}, {"image_id": 1, "question_str": canary}]
    np.save(path, np.array(rows, dtype=object), allow_pickle=True)
    option = f"dataset_config.vqa2.annotations.train=[{path}]"
    with pytest.raises(UserError, match=r"imdb_hostile\.npy cannot be read, and nothing .* an object of posix\.mkdir"):
        finetune("demo_vqa2", tmp_path / "save", f"env.data_dir={data}", option, *FEW)


@pytest.mark.parametrize("name", ["pretrained", "resumed"])
def test_code_in_weights(finetune, data, canary, tmp_path, name):
    path = tmp_path / "hostile.ckpt"
    torch.save({"model": {"x": canary}}, path)
    key = {"pretrained": WEIGHTS, "resumed": "checkpoint.resume_file"}[name]
    options = (f"env.data_dir={data}", f"{key}={path}", "checkpoint.resume_pretrained=true", *FEW)
    with pytest.raises(UserError, match=r"hostile\.ckpt .*posix\.mkdir"):
        finetune("demo_hateful_memes", tmp_path / "save", *options)


@pytest.mark.parametrize("processor", ["answer_processor", "text_processor"])
def test_code_in_a_vocabulary(finetune, data, canary, tmp_path, processor):
    path = tmp_path / "vocab.txt"
    path.write_bytes(pickle.dumps(canary))
    key = {"answer_processor": "vocab_file", "text_processor": "tokenizer"}[processor]
    option = f"dataset_config.vqa2.processors.{processor}.params.{key}={path}"
    with pytest.raises(UserError, match=r"vocab\.txt"):
        finetune("demo_vqa2", tmp_path / "save", f"env.data_dir={data}", option, *FEW)
