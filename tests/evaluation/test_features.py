"""Feature extraction: order of the samples, distribution over processes, and the cache after an interruption."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmf_flava.errors import UserError
from mmf_flava.evaluation import features
from mmf_flava.evaluation.features import CHUNK
from tests.evaluation.toys import ToyDataset, ToyModel, extractor
from tests.processes import run_ranks

LONG = ToyDataset([[float(n), 1.0] for n in range(CHUNK * 3 + 5)], [n % 7 for n in range(CHUNK * 3 + 5)])


def test_samples_keep_the_order_of_the_dataset():
    data = ToyDataset([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], [2, -1, 0], [["a", "b"], ["c"], ["d"]])
    extracted = extractor().extract(ToyModel(), data, "contrastive")
    assert np.allclose(extracted.embeddings, [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])
    assert extracted.targets.tolist() == [2, -1, 0]
    assert extracted.ids == ["s0", "s1", "s2"]
    assert extracted.captions == [["a", "b"], ["c"], ["d"]]


def test_encoder_features_are_not_normalised():
    extracted = extractor().extract(ToyModel(), ToyDataset([[3.0, 4.0]], [0]), "encoder")
    assert extracted.embeddings.tolist() == [[3.0, 4.0]] and extracted.captions == [[]]


def test_on_batch_gets_every_batch():
    seen = []
    extractor(on_batch=lambda batch: seen.append(batch["sample_id"])).extract(
        ToyModel(), ToyDataset([[1.0]] * 3, [0] * 3), "encoder"
    )
    assert seen == [["s0", "s1"], ["s2"]]


def test_interrupted_extraction_resumes(tmp_path):
    model, settings = ToyModel(), extractor(batch_size=64, folder=tmp_path)
    chunks = settings.chunks(model, LONG, "encoder")
    next(chunks), next(chunks)
    del chunks
    assert model.images == 2 * CHUNK
    (folder,) = tmp_path.iterdir()
    truncated = sorted(folder.iterdir())[1]
    truncated.write_bytes(truncated.read_bytes()[:-9])
    (folder / ".000000000-000000128.safetensors.17").write_bytes(b"left by a killed process")

    extracted = settings.extract(model, LONG, "encoder")
    assert extracted.embeddings.tolist() == LONG.embeddings and extracted.targets.tolist() == LONG.targets
    assert model.images == 2 * CHUNK + len(LONG) - CHUNK  # the first chunk was cached
    settings.extract(model, LONG, "encoder")
    assert model.images == 2 * CHUNK + len(LONG) - CHUNK


def test_large_dataset_has_larger_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "LARGE_DATASET", len(LONG))
    extracted = extractor(batch_size=64, folder=tmp_path).extract(ToyModel(), LONG, "encoder")
    assert extracted.embeddings.tolist() == LONG.embeddings
    assert [path.name for path in tmp_path.glob("*/*")] == ["000000000-000000389.safetensors"]


def test_bad_records_are_left_out_and_their_chunk_is_not_cached(tmp_path):
    bad = {1, CHUNK - 1, *range(2 * CHUNK, 3 * CHUNK)}  # all records of the third chunk
    data = ToyDataset(LONG.embeddings, LONG.targets, bad=bad)
    model, settings = ToyModel(), extractor(batch_size=64, folder=tmp_path)
    good = [n for n in range(len(LONG)) if n not in bad]
    for _ in range(2):
        extracted = settings.extract(model, data, "encoder")
        assert extracted.embeddings.tolist() == [LONG.embeddings[n] for n in good]
        assert extracted.targets.tolist() == [LONG.targets[n] for n in good]
        assert extracted.ids == [f"s{n}" for n in good]
        assert extracted.bad == [f"s{n}" for n in sorted(bad)]
    assert [path.name for path in sorted(tmp_path.glob("*/*"))] == [
        "000000128-000000256.safetensors",
        "000000384-000000389.safetensors",
    ]
    data.bad = set()
    assert settings.extract(model, data, "encoder").embeddings.tolist() == LONG.embeddings
    assert len(list(tmp_path.glob("*/*"))) == 4


def test_all_records_are_bad():
    extracted = extractor().extract(ToyModel(), ToyDataset([[1.0]] * 3, [0] * 3, bad={0, 1, 2}), "encoder")
    assert len(extracted) == 0 and extracted.bad == ["s0", "s1", "s2"]


@pytest.mark.parametrize("change", ["weights", "records", "config", "kind"])
def test_changed_inputs_use_another_cache(tmp_path, change):
    model, data, kind = ToyModel(), ToyDataset([[3.0, 4.0]], [0]), "encoder"
    extractor(folder=tmp_path).extract(model, data, kind)
    if change == "weights":
        model.weight.data.fill_(2.0)
    elif change == "records":
        data.embeddings = [[5.0, 12.0]]
    elif change == "config":
        data.config = {"processors": {"image_processor": {"params": {"image_size": 480}}}}
    else:
        kind = "contrastive"
    extractor(folder=tmp_path).extract(model, data, kind)
    assert model.images == 2 and len(list(tmp_path.iterdir())) == 2


def test_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"evaluation\.features_dir: .*file"):
        extractor(folder=tmp_path / "file").extract(ToyModel(), ToyDataset([[1.0]], [0]), "encoder")


def test_dataset_without_a_fingerprint_is_not_cached(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(features.mmf_api, "log", messages.append)
    monkeypatch.delattr(ToyDataset, "fingerprint")
    extractor(folder=tmp_path).extract(ToyModel(), ToyDataset([[3.0, 4.0]], [0]), "encoder")
    assert not list(tmp_path.iterdir())
    assert len(messages) == 1 and "embeddings of dataset 'toy' are not cached" in messages[0]


def run_process(rank: int, processes: int, folder: str) -> None:
    init_method = f"file://{folder}/rendezvous{processes}"
    dist.init_process_group("gloo", init_method=init_method, world_size=processes, rank=rank)
    model = ToyModel()
    extracted = extractor(batch_size=64, folder=Path(folder) / "cache").extract(model, LONG, "encoder")
    torch.save((extracted, model.images), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_chunks_are_distributed_and_all_processes_get_all_samples(tmp_path):
    run_ranks(run_process, (2, str(tmp_path)), 2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    assert [images for _, images in results] == [2 * CHUNK, CHUNK + 5]
    for extracted, _ in results:
        assert extracted.embeddings.tolist() == LONG.embeddings
        assert extracted.ids == [f"s{n}" for n in range(len(LONG))]


def test_interleave():
    assert features.interleave([["a", "c", "e"], ["b", "d"]]) == ["a", "b", "c", "d", "e"]
