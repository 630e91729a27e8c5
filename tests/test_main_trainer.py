"""``training.trainer: mmf``, the trainer of MMF's main branch, pretrains and resumes FLAVA with a user's callback."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.conftest import DEMO
from tests.mmf_versions import needs_main

pytestmark = needs_main

CALLBACK = """
import json
from mmf.common.registry import registry
from mmf.trainers.callbacks.base import Callback

@registry.register_callback("recorder")
class Recorder(Callback):
    def __init__(self, config, trainer, path):
        super().__init__(config, trainer)
        self.path = path

    def record(self, event, **fields):
        with open(self.path, "a") as handle:
            handle.write(json.dumps({"event": event, "update": self.trainer.num_updates, **fields}) + "\\n")

    def on_train_start(self, **kwargs):
        self.record("train")

    def on_update_end(self, report, **kwargs):
        losses = {key: value.item() for key, value in report.losses.items()}
        self.record("update", dataset=report.dataset_name, samples=list(report.sample_id), losses=losses,
                  lr=self.trainer.optimizer.param_groups[0]["lr"])

    def on_validation_end(self, meter, **kwargs):
        self.record("validation", metrics={key: float(value.global_avg) for key, value in meter.meters.items()})

    def on_test_end(self, meter, **kwargs):
        self.record("test", metrics={key: float(value.global_avg) for key, value in meter.meters.items()})
"""

RECIPE = """
includes: ['{demo}']
training:
  trainer: mmf
  batch_size: 16
  callbacks:
  - type: recorder
    params: {{path: '{events}'}}
scheduler:
  params: {{num_warmup_steps: 1}}
evaluation:
  metrics:
  - {{type: r@1_retrieval, datasets: [pmd]}}
  - {{type: r@5_rev_retrieval, datasets: [pmd]}}
dataset_config:
  imagenet:
    splits: {{val: null}}
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    """The demo's recipe for MMF's trainer, and a user's package with the callback."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "__init__.py").write_text(CALLBACK)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.format(demo=DEMO, events=tmp_path / "events.jsonl"))
    return str(path)


def read_events(folder: Path, event: str) -> list[dict]:
    records = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == event]


def test_trains_validates_saves_resumes_and_evaluates(mmf, recipe, tmp_path):
    """ImageNet has no val split here; a resumed run uses samples that the first run has not used."""
    options = [f"env.user_dir={tmp_path / 'user'}"]
    options += ["training.evaluation_interval=5", "training.checkpoint_interval=5", "training.log_interval=5"]
    first = mmf("mmf_run", "training.max_updates=10", "training.tensorboard=true", *options, config=recipe)
    assert first.returncode == 0, first.stderr[-3000:]

    log = (tmp_path / "run" / "train.log").read_text()
    (record,) = [line for line in log.splitlines() if "training.trainer: mmf ignores" in line]
    assert "evaluation.zero_shot" in record and "max_to_keep" not in record
    updates = read_events(tmp_path, "update")
    assert [line["update"] for line in updates] == list(range(1, 11))
    assert {line["dataset"] for line in updates} >= {"pmd", "imagenet"}
    assert all(math.isfinite(loss) for line in updates for loss in line["losses"].values())
    pairs = [line["losses"] for line in updates if line["dataset"] == "pmd"]
    # its weight, 2, times the entropy of a random choice among 16
    assert pairs[0]["train/pmd/flava_global_contrastive"] == pytest.approx(2 * math.log(16), rel=0.1)
    assert pairs[-1]["train/pmd/flava_mmm_text"] < 0.9 * pairs[0]["train/pmd/flava_mmm_text"]

    metrics = read_events(tmp_path, "validation")[-1]["metrics"]
    assert {"val/pmd/r@1_retrieval", "val/pmd/flava_itm", "val/ccnews_bookcorpus/flava_mlm"} <= set(metrics)
    assert not [name for name in metrics if "imagenet" in name]
    (tested,) = read_events(tmp_path, "test")
    assert 0 < tested["metrics"]["test/pmd/r@5_rev_retrieval"] <= 1 and "test/imagenet/flava_mim" in tested["metrics"]
    for name in ("best.ckpt", "current.ckpt", "flava_final.pth", "models/model_10.ckpt"):
        assert (tmp_path / "run" / name).is_file()
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))

    second = mmf("mmf_run", "training.max_updates=12", "checkpoint.resume=true", *options, config=recipe)
    assert second.returncode == 0, second.stderr[-3000:]
    resumed = read_events(tmp_path, "update")[10:]
    assert [line["update"] for line in resumed] == [11, 12]
    seen = {line["dataset"]: line["samples"] for line in updates}
    assert all(line["samples"] != seen.get(line["dataset"]) for line in resumed)

    (tmp_path / "events.jsonl").unlink()
    alone = mmf("mmf_run", "run_type=test", "checkpoint.resume=true", *options, config=recipe)
    assert alone.returncode == 0, alone.stderr[-3000:]
    assert set(read_events(tmp_path, "test")[0]["metrics"]) == set(tested["metrics"])


@pytest.mark.parametrize(
    ("options", "processes", "unsupported"),
    [(["training.precision=bf16"], 1, "training.precision: bf16"), (["training.sharding=ddp"], 2, "2 processes")],
)
def test_unsupported_options_are_errors(mmf, recipe, tmp_path, options, processes, unsupported):
    options = [*options, f"env.user_dir={tmp_path / 'user'}"]
    result = mmf("mmf_run", *options, config=recipe, processes=processes)
    assert result.returncode != 0
    message = next(line for line in result.stderr.splitlines() if line.startswith("mmf_flava: "))
    assert unsupported in message and "Use training.trainer: flava." in message


def test_our_trainer_evaluates_weights_of_mmfs_trainer(mmf, recipe, tmp_path):
    options = [f"env.user_dir={tmp_path / 'user'}", "run_type=train", "training.max_updates=1"]
    options += ["training.evaluation_interval=5"]
    assert mmf("mmf_run", *options, config=recipe).returncode == 0
    weights = tmp_path / "run" / "flava_final.pth"
    assert "flava.logit_scale" in torch.load(weights)
    options = ["run_type=test", f"checkpoint.resume_file={weights}", "checkpoint.resume_pretrained=true"]
    result = mmf("mmf_run", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Zero-shot accuracy" in result.stdout
