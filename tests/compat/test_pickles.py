"""In FLAVA's runs, MMF's readers of annotations, features and weights execute nothing; other runs are unchanged."""

import importlib
import pickle
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
import torch
from mmf.datasets.databases.annotation_database import AnnotationDatabase
from mmf.datasets.databases.readers import feature_readers
from mmf.datasets.databases.readers.feature_readers import FeatureReader
from mmf.datasets.databases.scene_graph_database import SceneGraphDatabase
from mmf.utils.checkpoint import Checkpoint
from mmf.utils.text import VocabDict

from mmf_flava.compat.behaviour.pickles import MODULES
from mmf_flava.errors import UserError
from tests.files.hostile_pickles import Canary
from tests.mmf_versions import needs_main

ROWS = [{"dataset_name": "vqa", "version": 1}, {"image_id": 3, "question_tokens": ["what"], "answers": ["a", "<copy>"]}]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def canary(tmp_path):
    """An object that creates a folder when it is unpickled; the test fails if the folder exists at its end."""
    yield Canary(tmp_path / "mark")
    assert not (tmp_path / "mark").exists()


def save(path, content):
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return str(path)


@pytest.mark.parametrize("kind", ["flava", "other"])
def test_imdb_is_read(kind, request, tmp_path):
    if kind == "flava":
        request.getfixturevalue("own_run")
    database = AnnotationDatabase({}, save(tmp_path / "imdb.npy", ROWS))
    assert len(database) == 1 and database[0]["answers"] == ["a"] and database.metadata == {"version": 1}
    graphs = SceneGraphDatabase({}, save(tmp_path / "graphs.npy", ROWS[1:]))
    assert graphs[3]["question_tokens"] == ["what"]


@pytest.mark.parametrize("database", [AnnotationDatabase, SceneGraphDatabase])
def test_code_in_an_imdb_is_not_executed(database, own_run, canary, tmp_path):
    path = save(tmp_path / "imdb.npy", [*ROWS, canary])
    with pytest.raises(UserError, match=r"imdb\.npy cannot be read, and nothing in it was executed: .* posix\.mkdir"):
        database({}, path)


def test_other_runs_unpickle_as_before(tmp_path):
    AnnotationDatabase({}, save(tmp_path / "imdb.npy", [*ROWS, Canary(tmp_path / "mark")]))
    assert (tmp_path / "mark").exists()


def lmdb_file(path, **records):
    environment = lmdb.open(str(path))
    with environment.begin(write=True) as transaction:
        transaction.put(b"keys", pickle.dumps([name.encode() for name in records]))
        for name, record in records.items():
            transaction.put(name.encode(), pickle.dumps(record))
    environment.close()
    return FeatureReader(str(path), False, 5)


@pytest.mark.parametrize("kind", ["flava", "other"])
def test_features_are_read(kind, request, tmp_path):
    if kind == "flava":
        request.getfixturevalue("own_run")
    np.save(tmp_path / "plain.npy", FEATURES)
    np.save(tmp_path / "boxes.npy", FEATURES)
    save(tmp_path / "boxes_info.npy", {"image_width": 3, "bbox": FEATURES[:, :2]})
    for reader, name in [
        (FeatureReader(str(tmp_path), False, 5), "plain.npy"),
        (FeatureReader(str(tmp_path), False, 5), "boxes.npy"),
        (lmdb_file(tmp_path / "x.lmdb", a={"features": FEATURES, "image_width": 3}), "a.npy"),
    ]:
        features, info = reader.read(name)
        assert torch.equal(features[:3], torch.from_numpy(FEATURES)) and features.shape == (5, 4)
        assert info["max_features"] == 3 and info.get("image_width", 3) == 3


def test_code_in_features_is_not_executed(own_run, canary, tmp_path):
    np.save(tmp_path / "a.npy", FEATURES)
    save(tmp_path / "a_info.npy", {"image_width": canary})
    save(tmp_path / "b.npy", {"image_feat": canary})
    files = FeatureReader(str(tmp_path), False, 5)
    for reader, name in [(files, "a.npy"), (files, "b.npy"), (lmdb_file(tmp_path / "x.lmdb", c=canary), "c.npy")]:
        with pytest.raises(ValueError, match=r"(a_info|b|c)\.npy cannot be read, and nothing .* posix\.mkdir"):
            reader.read(name)
    environment = lmdb.open(str(tmp_path / "keys.lmdb"))
    with environment.begin(write=True) as transaction:
        transaction.put(b"keys", pickle.dumps(canary))
    environment.close()
    with pytest.raises(ValueError, match=r"keys\.lmdb, record of .* posix\.mkdir"):
        FeatureReader(str(tmp_path / "keys.lmdb"), False, 5).read("c.npy")


@needs_main
def test_code_in_torch_features_is_not_executed(own_run, canary, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(torch.from_numpy(FEATURES), tmp_path / "good.pth")
    assert torch.equal(feature_readers.load_feat(str(tmp_path / "good.pth")), torch.from_numpy(FEATURES))
    torch.save(canary, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read, and nothing"):
        feature_readers.load_feat(str(tmp_path / "bad.pth"))


def test_code_in_a_checkpoint_is_not_executed(own_run, canary, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for zipped in (True, False):
        torch.save({"model": canary}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=r"x\.ckpt contains posix\.mkdir, which torch does not unpickle"):
            Checkpoint._torch_load(SimpleNamespace(device="cpu"), str(tmp_path / "x.ckpt"))


def test_code_in_a_vocabulary_is_not_executed(own_run, canary, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(pickle.dumps(canary))
    with pytest.raises(UserError, match=r"vocab\.txt cannot be read"):
        VocabDict(str(tmp_path / "vocab.txt"))


def test_code_in_weights_of_a_module_is_not_executed(own_run, canary, tmp_path):
    from mmf.modules.embeddings import ImageFinetune

    paths = []
    for name, array in (("weights", np.ones((2, 4), np.float32)), ("bias", np.zeros(2, np.float32))):
        paths.append(str(tmp_path / name))
        (tmp_path / name).write_bytes(pickle.dumps(array))
    assert ImageFinetune(4, *paths).lc.weight.tolist() == [[1.0] * 4] * 2
    (tmp_path / "bias").write_bytes(pickle.dumps(canary))
    with pytest.raises(UserError, match=r"bias cannot be read, and nothing in it was executed: .* posix\.mkdir"):
        ImageFinetune(4, *paths)


@needs_main
def test_code_of_a_repository_is_not_downloaded(own_run):
    encoders = importlib.import_module(MODULES["encoders"])
    with pytest.raises(UserError, match=r"mmf\.modules\.encoders downloads and executes code of facebookresearch/"):
        encoders.torch.hub.load("facebookresearch/pytorchvideo", model="x")


@needs_main
def test_class_names_are_not_evaluated(own_run, tmp_path):
    module = importlib.import_module("mmf.utils.features.visualizing_image")
    (tmp_path / "good").write_text("['cat', 'dog']")
    assert module.get_data(str(tmp_path / "good")) == ["cat", "dog"]
    (tmp_path / "bad").write_text(f"__import__('os').mkdir({str(tmp_path / 'mark')!r})")
    with pytest.raises(ValueError, match="malformed node"):
        module.get_data(str(tmp_path / "bad"))
    assert not (tmp_path / "mark").exists()


def test_code_in_cifar_is_not_executed(own_run, canary, tmp_path):
    cifar = importlib.import_module(MODULES["cifar"])
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2], "filenames": ["a.png", "b.png"]}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, 2))
    with open(tmp_path / "batch", "rb") as file:
        assert cifar.pickle.load(file, encoding="latin1")["data"].shape == (2, 3072)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": canary}, 2))
    with open(tmp_path / "batch", "rb") as file, pytest.raises(UserError, match=r"batch cannot be read, and nothing"):
        cifar.pickle.load(file, encoding="latin1")


def test_libraries_are_unchanged_for_other_modules():
    assert feature_readers.np.load is not np.load and feature_readers.np.zeros is np.zeros
    assert np.load.__module__ == "numpy" and pickle.loads(pickle.dumps(1)) == 1
