"""DINO by its command on the demo's scans: evaluations, report, exports, and a FLAVA run that starts from it."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from mmf_flava.convert import convert

PRETRAIN = "projects/flava/configs/pretrain"
FEW = ["training.log_interval=2", "training.evaluation_interval=4", "evaluation.linear_probe.max_iterations=5"]


@pytest.fixture
def dino(mmf):
    def run(*options, processes=1):
        config = f"{PRETRAIN}/demo_image_encoder_dino.yaml"
        result = mmf("mmf_run", *FEW, *options, config=config, processes=processes)
        assert result.returncode == 0, result.stderr[-3000:]
        return result

    return run


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_run_is_evaluated_exported_and_used_by_flava(dino, mmf, tmp_path):
    result, folder = dino(), tmp_path / "run"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train, val = ([record for record in records if record["split"] == split] for split in ("train", "val"))
    assert [record["update"] for record in train] == [2, 4]
    assert all(0 < record["outputs"]["teacher_entropy"] < 7.63 for record in train)  # ln 2048 = 7.62
    assert "teacher_entropy" in result.stdout and "20-NN accuracy 0." in result.stdout
    assert val[0]["knn"]["count"] == 137
    evaluation = read(folder, "evaluation.json")
    assert evaluation["knn"]["samples"] == {"train": 1300, "test": 360} and evaluation["knn"]["k"] == 20
    assert evaluation["knn"]["accuracy"] > 0.2  # chance is 0.1
    assert evaluation["linear_probe"]["samples"]["fitted"] == 1437
    page = (folder / "report.html").read_text()
    assert page.count('class="triple attention"') == 8 and "Entropy of the teacher" in page
    assert (folder / "checkpoints" / "best").is_file()  # by knn/accuracy

    weights = load_file(next((folder / "checkpoints").glob("update_*/model.safetensors")))
    convert(folder, tmp_path / "vit", "timm")
    convert(folder, tmp_path / "dino.pth", "dino")
    peer = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True)
    published = torch.load(tmp_path / "dino.pth", weights_only=True)["teacher"]
    for key, value in peer.state_dict().items():
        assert torch.equal(value, weights[f"teacher.encoder.{key}"])
        assert torch.equal(value, published[f"backbone.{key}"])

    options = [f"model_config.flava.image_encoder.pretrained={folder}", f"env.save_dir={tmp_path / 'joint'}"]
    options += ["optimizer.params.lr=0.0", "training.max_updates=1"]
    result = mmf("mmf_run", *options, config=f"{PRETRAIN}/demo_flava_c.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"Loaded the image encoder from {folder}" in result.stdout
    started = load_file(next((tmp_path / "joint" / "checkpoints").glob("update_*/model.safetensors")))
    assert all(torch.equal(started[f"flava.image_encoder.{key}"], value) for key, value in peer.state_dict().items())


def test_results_are_equal_for_one_and_two_processes(dino, tmp_path):
    found = []
    for processes, sharding in ((1, "none"), (2, "ddp"), (2, "fsdp")):
        folder = tmp_path / f"{sharding}"
        options = ["training.max_updates=1", "evaluation.linear_probe=null", "optimizer.params.lr=0.0"]
        dino(f"training.sharding={sharding}", f"env.save_dir={folder}", *options, processes=processes)
        found.append((read(folder, "evaluation.json")["knn"], read(folder, "examples/attention.json")))
        found[-1] += ((folder / "examples" / "attention_3_mean.png").read_bytes(),)
    assert found[0] == found[1]
    assert found[0][0] == found[2][0]


@pytest.mark.parametrize("black", [True, False])
def test_equal_images_are_a_collapse(dino, tmp_path, black):
    """All images are black, and so are all crops, or are equal, but their crops differ: log and report say so."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8) * (not black)
    for split in ("train", "val"):
        folder = tmp_path / "images" / split / "one"
        folder.mkdir(parents=True)
        for number in range(32):
            Image.fromarray(pixels).save(folder / f"{number}.png")
    data = [f"dataset_config.imagenet.data_dir={tmp_path / 'images'}", "dataset_config.imagenet.build=null"]
    data += [f"dataset_config.imagenet.splits.{split}=[{name}]" for split, name in
             (("train", "train"), ("val", "val"), ("test", "val"))]  # fmt: skip
    result = dino(*data, "evaluation.linear_probe=null", "optimizer.params.lr=0.0")
    page = (tmp_path / "run" / "report.html").read_text()
    sentence = "hardly depends on the image" if black else "depends on the crop, but hardly on the image"
    assert sentence in result.stdout and sentence in page
