"""Vectors of a dataset: in order, by all processes, and from a cache that was interrupted."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from mmf_flava.errors import UserError
from mmf_flava.evaluation import features
from mmf_flava.evaluation.features import CHUNK
from tests.evaluation.toys import Model, Vectors, extraction

LONG = Vectors([[float(n), 1.0] for n in range(CHUNK * 3 + 5)], [n % 7 for n in range(CHUNK * 3 + 5)])


def test_whole_dataset_in_order():
    data = Vectors([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], [2, -1, 0], [["a", "b"], ["c"], ["d"]])
    whole = extraction().whole(Model(), data, "contrastive")
    assert np.allclose(whole.vectors, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
    assert whole.targets.tolist() == [2, -1, 0]
    assert whole.ids == ["s0", "s1", "s2"]
    assert whole.captions == [["a", "b"], ["c"], ["d"]]


def test_what_a_probe_takes_is_not_normalised():
    whole = extraction().whole(Model(), Vectors([[3.0, 4.0]], [0]), "encoder")
    assert whole.vectors.tolist() == [[3.0, 4.0]] and whole.captions == [[]]


def test_every_batch_is_noted():
    noted = []
    extraction(note=lambda batch: noted.append(batch["sample_id"])).whole(
        Model(), Vectors([[1.0]] * 3, [0] * 3), "encoder"
    )
    assert noted == [["s0", "s1"], ["s2"]]


def test_interrupted_extraction_goes_on(tmp_path):
    model, settings = Model(), extraction(batch_size=64, folder=tmp_path)
    chunks = settings.chunks(model, LONG, "encoder")
    next(chunks), next(chunks)
    del chunks
    assert model.images == 2 * CHUNK
    (folder,) = tmp_path.iterdir()
    cut = sorted(folder.iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:-9])
    (folder / ".000000000-000000128.safetensors.17").write_bytes(b"left by a kill")

    whole = settings.whole(model, LONG, "encoder")
    assert whole.vectors.tolist() == LONG.vectors and whole.targets.tolist() == LONG.targets
    assert model.images == 2 * CHUNK + len(LONG) - CHUNK  # the first chunk was there
    settings.whole(model, LONG, "encoder")
    assert model.images == 2 * CHUNK + len(LONG) - CHUNK


def test_a_large_set_has_fewer_files(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "LARGE", len(LONG))
    whole = extraction(batch_size=64, folder=tmp_path).whole(Model(), LONG, "encoder")
    assert whole.vectors.tolist() == LONG.vectors
    assert [path.name for path in tmp_path.glob("*/*")] == ["000000000-000000389.safetensors"]


@pytest.mark.parametrize("change", ["weights", "records", "view", "kind"])
def test_other_vectors_have_another_cache(tmp_path, change):
    model, data, kind = Model(), Vectors([[3.0, 4.0]], [0]), "encoder"
    extraction(folder=tmp_path).whole(model, data, kind)
    if change == "weights":
        model.weight.data.fill_(2.0)
    elif change == "records":
        data.vectors = [[5.0, 12.0]]
    elif change == "view":
        data.config = {"processors": {"image_processor": {"params": {"image_size": 480}}}}
    else:
        kind = "contrastive"
    extraction(folder=tmp_path).whole(model, data, kind)
    assert model.images == 2 and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"evaluation\.features_dir: .*file"):
        extraction(folder=tmp_path / "file").whole(Model(), Vectors([[1.0]], [0]), "encoder")


def test_a_dataset_without_a_fingerprint_is_named(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(features.mmf_api, "log", said.append)
    monkeypatch.delattr(Vectors, "fingerprint")
    extraction(folder=tmp_path).whole(Model(), Vectors([[3.0, 4.0]], [0]), "encoder")
    assert not list(tmp_path.iterdir())
    assert len(said) == 1 and "vectors of dataset 'toy' are not kept" in said[0]


def one_of_many(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{ranks}", world_size=ranks, rank=rank)
    model = Model()
    whole = extraction(batch_size=64, shared=True).whole(model, LONG, "encoder")
    torch.save((whole, model.images), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_processes_share_the_chunks_and_all_get_all(tmp_path):
    multiprocessing.spawn(one_of_many, (2, str(tmp_path)), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    assert [images for _, images in found] == [2 * CHUNK, CHUNK + 5]
    for whole, _ in found:
        assert whole.vectors.tolist() == LONG.vectors
        assert whole.ids == [f"s{n}" for n in range(len(LONG))]


def test_by_turns():
    assert features.by_turns([["a", "c", "e"], ["b", "d"]]) == ["a", "b", "c", "d", "e"]
