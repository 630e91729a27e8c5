"""A project with MMF's own model, dataset and trainer: it trains as in MMF, with or without FLAVA's behaviour.

``cnn_lstm`` is MMF's smallest model and downloads nothing; ``clevr`` is made here.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.mmf_versions import MMF_VERSION, needs_rc10

SCRIPTS = Path(sys.executable).parent
# MMF reads model and dataset from the command line only
STOCK = ("model=cnn_lstm", "dataset=clevr")


def make_clevr(folder: Path) -> None:
    """Write eight images a split, red or green, and a question about their colour."""
    for split in ("train", "val", "test"):
        images = folder / "images" / split
        images.mkdir(parents=True)
        (folder / "questions").mkdir(exist_ok=True)
        questions = []
        for number in range(8):
            color = ["red", "green"][number % 2]
            Image.new("RGB", (64, 64), color).save(images / f"{number}.png")
            questions.append({"question": "what color is it?", "answer": color, "image_filename": f"{number}.png"})
        (folder / "questions" / f"CLEVR_{split}_questions.json").write_text(json.dumps({"questions": questions}))


def write_recipe(folder: Path, data: Path) -> None:
    (data / "words.txt").write_text("\n".join(["what", "color", "is", "it"]) + "\n")
    (data / "answers.txt").write_text("\n".join(["<unk>", "red", "green"]) + "\n")
    text = {"type": "vocab", "params": {"vocab": {"type": "random", "vocab_file": "words.txt"}}}
    answers = {"params": {"vocab_file": "answers.txt"}}
    recipe = {
        "env": {"data_dir": str(data), "save_dir": "save"},
        "model_config": {"cnn_lstm": {"classifier": {"params": {"in_dim": 110}}}},
        "dataset_config": {"clevr": {"processors": {"text_processor": text, "answer_processor": answers}}},
        "evaluation": {"metrics": ["accuracy"]},
        "optimizer": {"type": "adam_w", "params": {"lr": 0.001}},
        "generator": {"lr": 1},  # a section of the user's
        "optimizer_d": {"lr": "${generator.lr}"},
        "training": {
            "batch_size": 2,
            "num_workers": 0,
            "max_updates": 8,
            "log_interval": 2,
            "evaluation_interval": 4,
            "checkpoint_interval": 4,
            "tensorboard": False,
            "seed": 1,
        },
    }
    if MMF_VERSION == "rc10":
        recipe["training"]["stdout_capture"] = False
    (folder / "stock.yaml").write_text(yaml.safe_dump(recipe))


@pytest.fixture
def project(tmp_path):
    """``project("folder", "mmf_run", *options)`` runs a script on the stock recipe in a new or existing folder."""
    data = tmp_path / "data"
    make_clevr(data / "CLEVR_v1.0" / "CLEVR_v1.0")

    def run(name: str, script: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            write_recipe(folder, data)
        variables = {"OMP_NUM_THREADS": "1", "MMF_CACHE_DIR": str(tmp_path / "cache"), **environment}
        return subprocess.run(
            [SCRIPTS / script, "config=stock.yaml", *options],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )

    return run


def logged_values(folder: Path) -> list[str]:
    """Return the losses and metrics of a run's log in order."""
    log = (folder / "save" / "train.log").read_text()
    return re.findall(r"(?:train|val|test)/[\w/]+: [-\w.]+", log)


def test_default_equals_imports_alone(project, tmp_path):
    """Configuration, losses and exit code are equal; only the record of fixed defects differs."""
    results = {level: project(level, "mmf_run", *STOCK, MMF_FLAVA_COMPAT=level) for level in ("imports", "all")}
    for level, result in results.items():
        assert result.returncode == 0, f"{level}: {result.stderr[-3000:]}"
    values = [logged_values(tmp_path / level) for level in results]
    assert values[0] == values[1] and any("val/clevr/accuracy" in value for value in values[0])
    configs = [(tmp_path / level / "save" / "config.yaml").read_text() for level in results]
    assert configs[0] == configs[1] and "optimizer_d" in configs[0] and "max_grad_l2_norm" not in configs[0]
    logs = {level: (tmp_path / level / "save" / "train.log").read_text() for level in results}
    (record,) = [line for line in logs["all"].splitlines() if "mmf_flava fixes these defects" in line]
    assert "distributed.process_group" in record and "report.fixed_defects" not in record
    assert "mmf_flava" not in logs["imports"]


def test_errors_equal_those_of_imports_alone(project):
    """An unknown option is MMF's own error."""
    options = (*STOCK, "training.max_update=3")
    results = [project("errors", "mmf_run", *options, MMF_FLAVA_COMPAT=level) for level in ("imports", "all")]
    assert [result.returncode for result in results] == [1, 1]
    errors = [result.stderr.splitlines()[-1] for result in results]
    assert errors[0] == errors[1] and "AttributeError" in errors[0]
    assert "mmf_flava: " not in results[1].stderr


@needs_rc10
def test_stock_model_trains_evaluates_saves_resumes_and_predicts(project, tmp_path):
    def script(name: str, *options: str) -> str:
        done = project("stock", name, *STOCK, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    log = script("mmf_run")  # eight updates of two: two epochs
    assert "epoch: 2, num_updates: 8" in log and "val/clevr/accuracy" in log and "test/clevr/accuracy" in log
    save = tmp_path / "stock" / "save"
    first = torch.load(save / "current.ckpt", weights_only=True)
    assert first["num_updates"] == 8 and first["config"]["model"] == "cnn_lstm"
    assert (save / "cnn_lstm_final.pth").exists() and "cnn_lstm" in (save / "config.yaml").read_text()

    log = script("mmf_run", "checkpoint.resume=True", "training.max_updates=12")
    assert "num_updates: 10," in log and "num_updates: 2," not in log, "the run has not resumed"
    second = torch.load(save / "current.ckpt", weights_only=True)
    assert second["num_updates"] == 12
    assert any(not torch.equal(second["model"][name], first["model"][name]) for name in first["model"])

    log = script("mmf_predict", "checkpoint.resume=True")
    assert "Checkpoint loaded" in log
    (report,) = save.glob("**/reports/*.json")
    # CLEVR of rc10 has no format_for_prediction: one empty list for all its test batches
    assert json.loads(report.read_text()) == []
