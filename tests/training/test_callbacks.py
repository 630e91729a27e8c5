"""``training.trainer: flava`` calls user callbacks with the events and arguments of MMF's trainer."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.errors import UserError
from mmf_flava.training.signals import STOPPED
from tests.conftest import DEMO
from tests.mmf_versions import needs_main, needs_rc10

UPDATE = ["on_update_start", *["on_batch_start", "on_batch_end"] * 2, "on_update_end"]
SKIPPED = UPDATE[:-1]
INIT = ["on_init_start", "on_init_end"]
OPTIONS = ["training.update_frequency=2", "training.log_interval=1", "evaluation.examples=null"]


def recipe(folder: Path, **params: object) -> str:
    """Write the demo recipe with the callback ``recorder``."""
    callbacks = [{"type": "recorder", "params": {"file": str(folder / "events"), **params}}]
    OmegaConf.save({"includes": [DEMO], "training": {"callbacks": callbacks}}, folder / "mine.yaml")
    return str(folder / "mine.yaml")


@pytest.fixture
def recorded(mmf, tmp_path):
    """``recorded(*options, nan_attempt=2)`` runs the demo; returns the result and the events per process."""

    def run(*options: str, processes: int = 1, script: str = "mmf_run", **params: int):
        mine = shutil.copytree(Path(__file__).with_name("user_dir"), tmp_path / "mine")
        options = (f"env.user_dir={mine}", *options)
        result = mmf(script, *options, config=recipe(tmp_path, **params), processes=processes)
        files = sorted(tmp_path.glob("events.*"))
        return result, [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    return run


def with_event(records: list[dict], event: str) -> list[dict]:
    return [record for record in records if record["event"] == event]


@needs_main
def test_events_have_the_documented_order_losses_and_metrics(recorded, tmp_path):
    result, (lines,) = recorded(*OPTIONS, "training.max_updates=3")
    assert result.returncode == 0, result.stderr[-3000:]
    assert [line["event"] for line in lines] == [
        *INIT,
        "on_train_start",
        *UPDATE * 3,
        "on_validation_start",
        "on_validation_end",
        "on_train_end",
        "on_test_start",
        "on_test_end",
        "teardown",
    ]
    batches, updates = with_event(lines, "on_batch_end"), with_event(lines, "on_update_end")
    assert [line["iteration"] for line in batches] == [1, 2, 3, 4, 5, 6]
    assert [line["update"] for line in updates] == [1, 2, 3]
    assert {line["report"]["size"] for line in batches} == {16} and updates[0]["report"]["size"] == 32

    run = tmp_path / "run"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line, written in zip(updates, metrics[:3], strict=True):
        name, split = line["report"]["of"]
        seen = {f"{split}/{name}/{loss}": value for loss, value in written["losses"].items()}
        assert line["report"]["losses"] == pytest.approx(seen)
        latest = {key: line["meter"][key] for key in [*seen, "train/total_loss"]}
        assert latest == pytest.approx({**seen, "train/total_loss": sum(seen.values())})
        assert line["should_log"] and line["lr"] == written["lr"]
    ended = [*with_event(lines, "on_validation_end"), *with_event(lines, "on_test_end")]
    final = json.loads((run / "evaluation.json").read_text())
    for line, written, split in zip(ended, (metrics[3], final), ("val", "test"), strict=True):
        assert line["report"]["of"] == ["pmd,imagenet,ccnews_bookcorpus", split]
        losses = {f"{split}/losses/{name}": value for name, value in written["losses"].items()}
        assert line["report"]["losses"] == pytest.approx(losses)
        assert line["meter"][f"{split}/total_loss"] == pytest.approx(sum(losses.values()))
        assert line["meter"][f"{split}/zero_shot/accuracy"] == pytest.approx(written["zero_shot"]["accuracy"])
        recall = "retrieval/text_to_image_r10"
        assert line["meter"][f"{split}/{recall}"] == pytest.approx(written["retrieval"][recall.partition("/")[2]])


@needs_main
def test_skipped_update_has_no_end_event_and_stopped_run_calls_teardown(recorded, tmp_path):
    result, (lines,) = recorded(*OPTIONS, "training.log_interval=3", "training.max_updates=9", nan_attempt=2, stop=2)
    assert result.returncode == STOPPED, result.stderr[-3000:]
    assert [line["event"] for line in lines] == [*INIT, "on_train_start", *UPDATE, *SKIPPED, *UPDATE, "teardown"]
    assert (tmp_path / "run" / "skipped.jsonl").is_file()
    assert [line["update"] for line in with_event(lines, "on_update_end")] == [1, 2]
    assert [line["should_log"] for line in with_event(lines, "on_update_end")] == [False, False]
    assert [line["report"]["size"] for line in with_event(lines, "on_update_end")] == [32, 32]


@needs_main
def test_all_processes_receive_the_first_process_evaluation(recorded):
    result, (first, second) = recorded("training.sharding=ddp", "training.max_updates=1", processes=2)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [line["event"] for line in first] == [line["event"] for line in second]
    for event in ("on_validation_end", "on_test_end"):
        assert with_event(first, event) == with_event(second, event) and len(with_event(first, event)) == 1


@needs_main
def test_prediction_events(recorded):
    result, (lines,) = recorded("run_type=test", script="mmf_predict")
    assert result.returncode == 0, result.stderr[-3000:]
    assert [line["event"] for line in lines] == [*INIT, "on_prediction_start", "on_prediction_end"]


@needs_main
@pytest.mark.parametrize(
    ("callback", "words"),
    [
        ({"type": "recordr"}, r"callbacks\[0\]\.type: no callback named 'recordr' .* Did you mean 'recorder'\?"),
        (
            {"type": "recorder", "parms": {}},
            r"'parms' is not a key of training\.callbacks\[0\]\. Did you mean 'params'",
        ),
        ({"params": {}}, r"training\.callbacks\[0\]\.type is not set"),
        ("recorder", r"training\.callbacks\[0\]: expected \{type.*got 'recorder'"),
        ({"type": "recorder", "params": {"fil": "x"}}, r"'fil' is not a key of .*\.params .* Did you mean 'file'\?"),
        ({"type": "recorder"}, r"training\.callbacks\[0\]\.params: recorder is missing a required argument: 'file'"),
    ],
)
def test_invalid_callback_raises_user_error(callback, words):
    importlib.import_module("tests.training.user_dir")  # registers "recorder"
    with pytest.raises(UserError, match=words):
        mmf_api.check_callbacks(OmegaConf.create({"training": {"callbacks": [callback]}}))


@needs_rc10
def test_rc10_raises_user_error_for_callbacks(mmf, tmp_path):
    result = mmf("mmf_run", config=recipe(tmp_path))
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mmf_flava: training.callbacks is not supported by MMF 1.0.0rc10")
