"""A model of MMF's own runs through MMF's own scripts, and our plugin is found however MMF was started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmf.utils.env
import pytest
import torch
import yaml
from PIL import Image

import mmf_flava.compat.mmf
from tests.lines import needs_rc10

SCRIPTS = Path(sys.executable).parent


def make_clevr(folder: Path) -> None:
    """Eight images a split, red or green, and the question which."""
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


def recipe(data: Path, save: Path) -> dict:
    return {
        "model": "cnn_lstm",
        "dataset": "clevr",
        "env": {"data_dir": str(data), "save_dir": str(save)},
        "model_config": {"cnn_lstm": {"classifier": {"params": {"in_dim": 110}}}},
        "evaluation": {"metrics": ["accuracy"]},
        "optimizer": {"type": "adam_w", "params": {"lr": 0.001}},
        "training": {
            "batch_size": 2,
            "num_workers": 0,
            "max_updates": 8,
            "log_interval": 2,
            "evaluation_interval": 4,
            "checkpoint_interval": 4,
            "stdout_capture": False,
            "seed": 1,
        },
    }


def script(name: str, folder: Path, *opts: str) -> str:
    done = subprocess.run(
        [SCRIPTS / name, "config=stock.yaml", *opts],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def test_a_stock_model_trains_evaluates_saves_resumes_and_predicts(tmp_path):
    make_clevr(tmp_path / "data" / "CLEVR_v1.0" / "CLEVR_v1.0")
    save = tmp_path / "save"
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(recipe(tmp_path / "data", save)))

    log = script("mmf_run", tmp_path)  # eight updates of two: two epochs
    assert "epoch: 2, num_updates: 8" in log and "val/clevr/accuracy" in log and "test/clevr/accuracy" in log
    first = torch.load(save / "current.ckpt", weights_only=True)
    assert first["num_updates"] == 8 and first["config"]["model"] == "cnn_lstm"
    assert (save / "cnn_lstm_final.pth").exists() and "cnn_lstm" in (save / "config.yaml").read_text()

    log = script("mmf_run", tmp_path, "checkpoint.resume=true", "training.max_updates=12")
    assert "num_updates: 10," in log and "num_updates: 2," not in log, "it began anew"
    second = torch.load(save / "current.ckpt", weights_only=True)
    assert second["num_updates"] == 12
    assert any(not torch.equal(second["model"][name], first["model"][name]) for name in first["model"])

    log = script("mmf_predict", tmp_path, "checkpoint.resume=true")
    assert "Checkpoint loaded" in log
    (report,) = save.glob("**/reports/*.json")
    # CLEVR of rc10 has no format_for_prediction of its own: one empty list, of all its test batches
    assert json.loads(report.read_text()) == []


@pytest.fixture
def toy_plugin(tmp_path, monkeypatch):
    def write(text: str) -> None:
        (tmp_path / "toy_plugin_of_a_test.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mmf_flava.compat.mmf, "PLUGIN", "toy_plugin_of_a_test")
    yield write
    sys.modules.pop("toy_plugin_of_a_test", None)


def test_the_plugin_is_imported_once(toy_plugin, tmp_path):
    toy_plugin(f"open({str(tmp_path / 'count')!r}, 'a').write('x')")
    mmf.utils.env.setup_imports()
    mmf.utils.env.setup_imports()
    assert (tmp_path / "count").read_text() == "x"


def test_an_error_in_the_plugin_is_not_hidden(toy_plugin):
    toy_plugin("import no_such_module_of_a_test")
    with pytest.raises(ImportError, match="no_such_module_of_a_test"):
        mmf.utils.env.setup_imports()


def test_no_plugin_no_harm(toy_plugin):
    mmf.utils.env.setup_imports()


@pytest.mark.parametrize(
    "first",
    [
        # MMF's main branch registers nothing until it is asked to
        pytest.param("import mmf.common.registry", marks=needs_rc10),
        "import mmf_flava.models.pretraining",
        "from mmf.utils.env import setup_imports; setup_imports()",
    ],
)
def test_flava_is_registered_however_mmf_is_imported(first):
    code = f"{first}; from mmf.common.registry import registry; print(registry.get_model_class('flava').__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != "NoneType"


def test_a_folder_of_the_users_own_is_imported(tmp_path):
    (tmp_path / "of_my_own").mkdir()
    (tmp_path / "of_my_own" / "__init__.py").write_text("print('imported')")
    # a script's sys.path has the script's folder first, not the working directory
    code = "import sys; sys.path.remove(''); from mmf.utils.env import import_user_module as i; i('of_my_own')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"
