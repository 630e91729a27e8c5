"""Finetuning on MMF's datasets: recipes, scores, checkpoints and submission files."""

import csv
import json
from pathlib import Path

import pytest
import torch
from mmf.common.registry import registry
from mmf_cli.run import run as mmf_run
from PIL import Image

from mmf_flava.compat.mmf_api import MMF_TRAINER
from mmf_flava.config.recipes import recipe_path
from mmf_flava.data.prepare.demo import prepare_demo
from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import LATEST, read_pointer
from mmf_flava.models.pretrained import load_pretrained
from mmf_flava.report import write_report
from tests.finetuning.outputs import evaluation, lines, weights

# the small variant's larger images double the training time
SMALL = "model_config.flava_classification.image_encoder.image_size=24"


@pytest.fixture(scope="module")
def memes(finetune, tmp_path_factory):
    return finetune("demo_hateful_memes", tmp_path_factory.mktemp("memes"), "training.max_updates=40")


@pytest.fixture(scope="module")
def vqa(finetune, tmp_path_factory):
    return finetune("demo_vqa2", tmp_path_factory.mktemp("vqa"), "training.max_updates=40", SMALL)


def test_memes_are_learnt_from_image_and_text(memes):
    assert [line["update"] for line in lines(memes, "train")] == [10, 20, 30, 40]
    assert [line["update"] for line in lines(memes, "val")] == [20, 40]
    final = evaluation(memes)
    assert (final["task"], final["split"]) == ("hateful_memes", "val")
    assert final["metrics"].keys() == {"roc_auc", "accuracy"}
    assert final["losses"].keys() == {"cross_entropy"}
    assert final["metrics"]["accuracy"] > 0.8  # 0.5 with only the image or only the text
    assert final["update"] == max(lines(memes, "val"), key=lambda line: line["metrics"]["roc_auc"])["update"]


def test_vqa_answers_are_learnt(vqa):
    final = evaluation(vqa)
    assert final["task"] == "vqav2"
    assert final["metrics"]["vqa_accuracy"] > 0.6  # 0.42 without the image


def test_trainer_stops_at_max_updates(memes):
    summary = json.loads((memes / "summary.json").read_text())
    assert (summary["updates"], summary["samples"]) == (40, 40 * 32)
    assert read_pointer(memes / "checkpoints" / LATEST).name == "update_00000040"


def test_report_shows_losses_and_scores(memes):
    page = Path(write_report([memes])).read_text()
    assert "flava_classification" in page and "cross_entropy" in page
    assert "AUROC over the updates" in page and "No scores yet" not in page


def test_hateful_memes_submission(memes, finetune, monkeypatch, tmp_path):
    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path))
    options = ("run_type=test", "checkpoint.resume=true", "checkpoint.resume_best=true")
    finetune("demo_hateful_memes", memes, *options, predict=True)
    (file,) = tmp_path.glob("hateful_memes_*.csv")
    rows = list(csv.DictReader(file.open()))
    assert [list(row) for row in rows] == [["id", "proba", "label"]] * 7
    assert [(int(row["id"]), int(row["label"])) for row in rows] == [(1320 + n, n % 2) for n in range(7)]
    assert all((float(row["proba"]) > 0.5) == (row["label"] == "1") for row in rows)


def test_vqa_submission(vqa, finetune, monkeypatch, tmp_path):
    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path))
    finetune("demo_vqa2", vqa, "run_type=test", "checkpoint.resume=true", SMALL, predict=True)
    (file,) = tmp_path.glob("vqa2_*.json")
    answers = json.loads(file.read_text())
    assert [row["question_id"] for row in answers] == [33210 + 10 * n for n in range(6)]
    colours, places = {"red", "blue", "green"}, {"left", "right"}
    assert all(row["answer"] in (places if n % 2 else colours) for n, row in enumerate(answers))


def test_unlabelled_test_split_is_not_evaluated(vqa, finetune):
    before = evaluation(vqa)
    finetune("demo_vqa2", vqa, "run_type=test", "checkpoint.resume=true", SMALL)
    assert evaluation(vqa) == before
    assert "The test split of vqa2 has no labels" in (vqa / "train.log").read_text()


def test_snli_ve(finetune, tmp_path):
    folder = finetune("demo_snli_ve", tmp_path, "training.max_updates=10", "training.precision=bf16")
    final = evaluation(folder)
    assert (final["task"], final["update"]) == ("snli_ve", 10)
    assert final["metrics"].keys() == {"accuracy", "macro_f1"}
    assert json.loads((folder / "summary.json").read_text())["precision"] == "bf16"


def test_labelled_images(finetune, demo_data, tmp_path):
    options = ("training.max_updates=4", "training.evaluation_interval=2", f"env.data_dir={demo_data}")
    final = evaluation(finetune("demo_imagenet", tmp_path, *options))
    assert final["task"] == "demo_digits"
    assert final["metrics"].keys() == {"accuracy"} and final["losses"]["cross_entropy"] > 0


def test_class_names_travel_with_the_weights(finetune, demo_data, tmp_path, monkeypatch):
    names = [f"digit {n}" for n in range(10)]
    short = ("training.max_updates=2", "training.evaluation_interval=2", f"env.data_dir={demo_data}")
    section = "dataset_config.image_classification"
    finetune("demo_imagenet", tmp_path / "run", *short, f"{section}.classes={names}")
    for n in (7, 2):
        folder = tmp_path / "photos" / names[n]
        folder.mkdir(parents=True)
        Image.new("RGB", (30, 20), (20 * n, 0, 0)).save(folder / "1.png")
    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path))
    finetune(
        "demo_imagenet", tmp_path / "elsewhere", "run_type=test", f"checkpoint.resume_file={tmp_path}/run",
        f"{section}.build=null", f"{section}.data_dir={tmp_path}", f"{section}.splits={{train: photos, test: photos}}",
        predict=True,
    )  # fmt: skip
    (file,) = tmp_path.glob("image_classification_*.json")
    rows = json.loads(file.read_text())
    assert [row["id"] for row in rows] == ["digit 2/1.png", "digit 7/1.png"]
    assert {row["prediction"] for row in rows} <= {*names}
    assert all(0.1 <= row["confidence"] <= 1 for row in rows)


def test_every_split_of_run_type_has_its_scores(finetune, demo_data, tmp_path):
    options = ("training.max_updates=1", "run_type=train_val_test", f"env.data_dir={demo_data}")
    finetune("demo_imagenet", tmp_path, *options)
    assert evaluation(tmp_path)["split"] == "test"
    assert json.loads((tmp_path / "evaluation_val.json").read_text())["split"] == "val"


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    prepare_demo(folder / "flava_demo", progress=False)
    return folder


@pytest.fixture(scope="module")
def pretrained(demo_data, tmp_path_factory):
    """Run folder of pretraining for one update with the demo's model and data."""
    folder = tmp_path_factory.mktemp("pretrained")
    for processor in ("pmd_image_processor", "pmd_text_processor"):
        registry.unregister(processor)
    mmf_run(
        [
            f"config={recipe_path('pretrain/demo_clip')}",
            f"env.data_dir={demo_data}",
            f"env.save_dir={folder}",
            "training.max_updates=1",
            "training.num_threads=1",
            "dataset_config.pmd.splits.test=['pairs/val']",
        ]
    )
    return folder


UNCHANGED = ("training.max_updates=1", "optimizer.params.lr=0.0")


def test_initialisation_from_a_pretraining_run(finetune, pretrained, tmp_path):
    """With a learning rate of 0, all pretrained weights are kept; positions are interpolated for larger images."""
    source = f"model_config.flava_classification.pretrained={pretrained}"
    tokenizer = "dataset_config.vqa2.processors.text_processor.params.tokenizer=null"  # that of the weights
    finetune("demo_vqa2", tmp_path, *UNCHANGED, source, tokenizer)
    before = load_pretrained(pretrained).state_dict()
    after = weights(tmp_path)
    positions = "image_encoder.pos_embed"
    assert (before[positions].shape[1], after[f"flava.{positions}"].shape[1]) == (1 + 16, 1 + 36)
    assert [name for name in before if name != positions and not before[name].equal(after[f"flava.{name}"])] == []


def test_initialisation_from_a_finetuning_run(finetune, memes, tmp_path):
    """The weights of the core are loaded; those of the other task's head are not."""
    pretrained = f"model_config.flava_classification.pretrained={memes}"
    finetune("demo_snli_ve", tmp_path, *UNCHANGED, pretrained)
    before, after = weights(memes, LATEST), weights(tmp_path)
    core = [name for name in before if name.startswith("flava.")]
    assert [name for name in core if not before[name].equal(after[name])] == []
    assert after["classifier.layers.3.weight"].shape == (3, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["training.trainer=flava_finetune"], "training.trainer: flava_finetune .* training.trainer: flava"),
        (["model_config.flava_classification.pretrained=/nowhere"], "/nowhere was not found"),
        (["model_config.flava_classification.num_labels=0"], "num_labels: must be at least 1"),
        (["training.max_updates=null"], "training.max_updates or training.max_epochs must be given"),
    ],
)
def test_unsupported_options_raise_an_error(finetune, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        finetune("demo_hateful_memes", tmp_path, *options)


def test_recipe_commands(mmf, finetune, toy_data, tmp_path):
    """Train on two processes, which score 63 memes like one process, and write the submission file."""
    config = "projects/flava/configs/finetune/demo_hateful_memes.yaml"
    options = (f"env.data_dir={toy_data}", f"env.report_dir={tmp_path / 'reports'}", "training.max_updates=2")
    trained = mmf("mmf_run", *options, config=config, processes=2)
    assert trained.returncode == 0, trained.stderr[-2000:]
    run = tmp_path / "run"
    two_processes = evaluation(run)
    assert two_processes["task"] == "hateful_memes" and 0 < two_processes["metrics"]["roc_auc"] < 1
    resume = ("checkpoint.resume=true", "checkpoint.resume_best=true")
    one_process = evaluation(finetune("demo_hateful_memes", run, "run_type=val", *resume))
    assert one_process["metrics"] == pytest.approx(two_processes["metrics"], abs=1e-6)
    resume = ("evaluation.batch_size=2", *resume)  # four batches of seven memes
    predicted = mmf("mmf_predict", *options, "run_type=test", *resume, config=config, processes=2)
    assert predicted.returncode == 0, predicted.stderr[-2000:]
    (file,) = (tmp_path / "reports").glob("hateful_memes_*.csv")
    assert [int(row["id"]) for row in csv.DictReader(file.open())] == [1320 + n for n in range(7)]


def test_recipe_runs_with_mmfs_trainer(finetune, tmp_path):
    short = ("training.max_updates=2", "training.evaluation_interval=2")
    finetune("demo_hateful_memes", tmp_path, f"training.trainer={MMF_TRAINER}", *short)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["best_metric_value"] > 0
    assert not (tmp_path / "evaluation.json").exists()
