"""``mmf_run`` and ``mmf_predict`` in subprocesses, on the demo's data, with few updates."""

import json
import re
import shutil
from pathlib import Path

import pytest

from mmf_flava.config.model import LOSSES
from tests.conftest import DEMO


def last_lines(result) -> str:
    assert result.returncode == 0, result.stderr[-3000:]
    return "\n".join(result.stdout.splitlines()[-5:])


def test_one_command_trains_evaluates_and_reports(mmf, tmp_path):
    """Run in the root folder with an absolute recipe path; check all documented files and the final output."""
    secrets = ["training.experiment_name=${oc.env:WORD}", "env.report_dir=https://user:sesame@host/x?token=sesame"]
    secrets.append("training.log_detailed_config=true")
    result = mmf(
        "mmf_run", "training.log_interval=2", "training.tensorboard=true", *secrets, cwd=Path("/"), WORD="sesame"
    )
    lines = last_lines(result)
    for words in ("Trained flava", "Losses, first to last", "Zero-shot accuracy", "Recall@1", "Report: "):
        assert words in lines
    run = tmp_path / "run"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["update"] for m in metrics if m["split"] == "train"] == [2, 4]
    assert set(metrics[-1]["losses"]) == set(LOSSES) and metrics[-1]["split"] == "val"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["zero_shot"]["count"] == 360
    assert sum(map(sum, evaluation["zero_shot"]["confusion"])) == 360
    assert evaluation["retrieval"]["images"] == 360
    assert json.loads((run / "summary.json").read_text())["samples"] == 64
    data = json.loads((run / "data.json").read_text())
    assert data["pmd"]["train"]["records"] == 1300 and data["imagenet"]["test"]["parts"][0]["name"] == "val"
    examples = json.loads((run / "examples" / "examples.json").read_text())
    assert len(examples["images"]) == 8 and len(examples["sentences"]) == 8
    assert "<html" in (run / "report.html").read_text()
    config = (run / "config.yaml").read_text()
    assert "max_updates: 4" in config and "experiment_name: ${oc.env:WORD}" in config and "https://***@host/x" in config
    assert "sesame" not in result.stdout + result.stderr
    assert not [path for path in run.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    for name in ("latest", "best"):
        assert (run / "checkpoints" / name).read_text().startswith("update_00000004 ")
    assert list((run / "logs").glob("tensorboard_*/events*"))


def test_evaluation_alone_and_predictions(mmf, tmp_path):
    """``run_type=test``, on one and two processes, and ``mmf_predict`` give the accuracy of the training run."""
    last_lines(mmf("mmf_run", "evaluation.examples=null"))
    trained = json.loads((tmp_path / "run" / "evaluation.json").read_text())["zero_shot"]
    checkpoint = f"checkpoint.resume_file={tmp_path / 'run' / 'checkpoints' / 'update_00000004'}"
    assert "Zero-shot accuracy" in last_lines(mmf("mmf_run", "run_type=test", checkpoint))
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["zero_shot"] == trained

    alone = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    last_lines(mmf("mmf_run", "run_type=test", checkpoint, processes=2))
    together = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert together["losses"] == pytest.approx(alone["losses"])
    assert {**together, "losses": None} == {**alone, "losses": None}

    last_lines(mmf("mmf_predict", "checkpoint.resume=true", "checkpoint.resume_best=true", "run_type=test"))
    rows = json.loads((tmp_path / "run" / "reports" / "zero_shot_test.json").read_text())
    assert len(rows) == 360
    assert sum(row["prediction"] == row["target"] for row in rows) / 360 == pytest.approx(trained["accuracy"])


def test_new_run_moves_earlier_files_to_previous(mmf, tmp_path):
    options = ["training.max_updates=1", "evaluation.examples=null"]
    last_lines(mmf("mmf_run", *options))
    first = (tmp_path / "run" / "metrics.jsonl").read_text()
    last_lines(mmf("mmf_run", *options))
    assert (tmp_path / "run" / "previous" / "1" / "metrics.jsonl").read_text() == first
    assert (tmp_path / "run" / "previous" / "1" / "checkpoints" / "latest").is_file()


def test_bf16_round_robin_and_accumulation(mmf, tmp_path):
    options = ["training.precision=bf16", "multitasking.type=round_robin", "training.update_frequency=2"]
    last_lines(
        mmf("mmf_run", *options, "training.max_updates=3", "training.log_interval=1", "evaluation.examples=null")
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [sorted(line["losses"]) for line in lines if line["split"] == "train"]
    pair = sorted(set(LOSSES) - {"flava_mim", "flava_mlm"})
    assert losses == [pair, ["flava_mim"], ["flava_mlm"]]  # both batches of an update are of one dataset


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("traning.max_updates=40", ["traning", "training"]),
        ("training.max_update=40", ["max_update", "max_updates"]),
        ("training.batch_size=0", ["training.batch_size", "at least 1"]),
        ("training.batch_size=5000", ["5000", "1300"]),
        ("training.precision=fp17", ["fp17", "bf16"]),
        ("training.sharding=fsdp", ["fsdp", "none"]),
        ("model_config.flava.codebook.path=/nowhere.safetensors", ["/nowhere.safetensors", "codebook"]),
        ("model_config.flava.text_encoder.vocab_size=100", ["2048", "100"]),
        ("dataset_config.pmd.splits.train=['nowhere']", ["nowhere", "pmd"]),
        ("checkpoint.resume_file=/nowhere", ["/nowhere"]),
    ],
)
def test_invalid_options_give_a_one_line_error(mmf, option, words):
    result = mmf("mmf_run", option)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mmf_flava: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in last


def test_misspelt_recipe_key_is_reported(mmf, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"includes: ['{DEMO}']\nmodel_config:\n  flava:\n    image_encoder:\n      hiden_size: 32\n")
    result = mmf("mmf_run", config=str(recipe))
    assert result.returncode == 2
    assert "'hiden_size' is not a key of model_config.flava.image_encoder" in result.stderr
    assert "'hidden_size'" in result.stderr


def test_yaml_tag_raises_an_error_and_is_not_executed(mmf, tmp_path):
    recipe, folder = tmp_path / "evil.yaml", tmp_path / "created_by_the_tag"
    recipe.write_text(f"model: flava\ndataset: !!python/object/apply:os.mkdir ['{folder}']\n")
    result = mmf("mmf_run", config=str(recipe))
    assert result.returncode == 2
    assert "evil.yaml, line 2: the text is not valid YAML" in result.stderr and "python/object/apply" in result.stderr
    assert not folder.exists()


def test_bad_records_are_reported_and_too_many_stop_the_run(mmf, cache, tmp_path):
    """One image in ten is corrupt: the run stops with an error, or completes if ``max_bad_share`` is null."""
    last_lines(mmf("mmf_run", "training.max_updates=1", "evaluation.examples=null"))  # builds the data
    shutil.copytree(cache / "data" / "flava_demo", tmp_path / "data")
    for shard in (tmp_path / "data" / "pairs" / "train").glob("*.tar"):
        data = bytearray(shard.read_bytes())
        for number, found in enumerate(re.finditer(rb"IHDR", bytes(data))):
            if number % 10 == 0:
                data[found.start()] ^= 1
        shard.write_bytes(data)
    options = ["dataset=pmd", f"dataset_config.pmd.data_dir={tmp_path / 'data'}", "evaluation.examples=null"]
    options += ["training.batch_size=256", "training.max_updates=5"]
    options += ["training.log_interval=1", "evaluation.zero_shot=null", "evaluation.retrieval=null"]
    stopped = mmf("mmf_run", *options, "training.num_workers=1")  # the worker must not prevent the process from exiting
    assert stopped.returncode != 0
    message = next(line for line in stopped.stderr.splitlines() if "max_bad_share" in line)
    assert "not an image" in message and "quarantine.jsonl" in message
    assert len((tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()) > 50
    allowed = mmf("mmf_run", *options, "dataset_config.pmd.max_bad_share=null")
    assert "Bad records of pmd: " in last_lines(allowed)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert sum(summary["bad_records"]["pmd"].values()) == len(lines) == len(set(lines)) > 50
    assert list((tmp_path / "run" / "previous").rglob("quarantine.jsonl"))
