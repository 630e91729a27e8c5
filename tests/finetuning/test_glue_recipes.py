"""GLUE recipes: fairseq's settings, training of the small variants, and the path from mmf_run to the table."""

import argparse
import csv
import json
from pathlib import Path

import pytest
import torch
from fairseq.optim.fairseq_optimizer import FairseqOptimizer
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRSchedule
from mmf.common.registry import registry
from mmf.utils.build import build_scheduler
from mmf_cli.run import run

from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.glue_tasks import TASKS
from mmf_flava.evaluation.table.__main__ import main
from mmf_flava.evaluation.table.paper import paper_table, table_rows
from tests.data.glue_toys import write_tsv, write_vocabulary

RECIPES = Path(__file__).parents[2] / "projects/flava/configs/finetune/glue"

# task: batch size, warm-up updates, updates, learning rate, criterion of the best epoch, metrics
EXPECTED = {
    "cola": (16, 320, 5336, 1e-5, "matthews", ["matthews", "accuracy"]),
    "mnli": (32, 7432, 123873, 1e-5, "accuracy", ["accuracy"]),
    "mrpc": (16, 137, 2296, 1e-5, "accuracy_f1", ["accuracy", "f1", "accuracy_f1"]),
    "qnli": (32, 1986, 33112, 1e-5, "accuracy", ["accuracy"]),
    "qqp": (32, 28318, 113272, 1e-5, "accuracy_f1", ["accuracy", "f1", "accuracy_f1"]),
    "rte": (16, 122, 2036, 2e-5, "accuracy", ["accuracy"]),
    "sst2": (32, 1256, 20935, 1e-5, "accuracy", ["accuracy"]),
    "stsb": (16, 214, 3598, 2e-5, "pearson", ["pearson", "spearman"]),
}
# small variants that test_commands_write_scores_table_and_submission trains with mmf_run
TRAINED_BY_COMMAND = ("cola", "mrpc", "stsb")


@pytest.mark.parametrize("name", EXPECTED)
def test_recipe_settings(name):
    config = read_recipe(str(RECIPES / f"{name}.yaml"))
    training, model = config.training, config.model_config.flava_classification
    batch_size, warm_up, updates, rate, criterion, metrics = EXPECTED[name]
    assert (training.batch_size, training.max_updates) == (batch_size, updates)
    assert (config.optimizer.params.lr, config.scheduler.params.num_warmup_steps) == (rate, warm_up)
    assert (config.optimizer.params.betas, config.optimizer.params.eps) == ([0.9, 0.98], 1e-6)
    assert (config.optimizer.params.weight_decay, config.scheduler.params.num_training_steps) == (0.1, updates)
    assert training.early_stop.criteria == f"glue/{criterion}"
    assert not training.early_stop.minimize
    assert training.evaluation_interval == round(updates / 10)  # an epoch
    assert config.evaluation.metrics == metrics
    assert (config.evaluation.task, model.num_labels) == (name, TASKS[name].num_labels)
    assert model.losses[0].type == ("mse" if name == "stsb" else "cross_entropy")
    assert (model.text_encoder.dropout, model.text_encoder.attention_dropout, model.pretrained) == (
        0.1, 0.1, "facebook/flava-full",
    )  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_recipe_header_has_its_command_and_the_papers_score(name):
    header, small_header = (
        (RECIPES / f"{stem}.yaml").read_text().partition("\nincludes:")[0] for stem in (name, f"demo_{name}")
    )
    (row,) = (row.name for row in table_rows() if (name,) in row.tasks and row.section == "metrics")
    assert f"\n# Paper: {paper_table('table_c1').cells[row]['FLAVA']:.2f}, " in header
    assert f"mmf_run config=projects/flava/configs/finetune/glue/{name}.yaml" in header
    assert "estimated at 0.05 s per update; measured: not run" in header
    assert f"mmf_run config=projects/flava/configs/finetune/glue/demo_{name}.yaml" in small_header


class Rate(FairseqOptimizer):
    """An optimizer with only a learning rate, for fairseq's schedule."""

    def __init__(self):
        self.rate = 0.0

    def get_lr(self):
        return self.rate

    def set_lr(self, rate):
        self.rate = rate


def test_learning_rate_equals_fairseqs():
    """From the second update on: MMF's schedule starts at 0, fairseq's at its second value."""
    config = read_recipe(str(RECIPES / "rte.yaml"))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.optimizer.params.lr)
    schedule, rate = build_scheduler(optimizer, config), config.optimizer.params.lr

    settings = argparse.Namespace(
        lr=[rate], warmup_updates=122, total_num_update=2036, end_learning_rate=0.0, power=1.0, force_anneal=None
    )
    fairseq = PolynomialDecayLRSchedule(settings, Rate())
    for update in (1, 60, 122, 123, 1000, 2035, 2036):
        schedule.step(update)
        assert schedule.get_last_lr()[0] == pytest.approx(fairseq.step_update(update), rel=1e-9, abs=1e-15)


# ---------------------------------------------------------------------- training of small variants


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """``env.data_dir`` with the files of all tasks and the small variants' tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    write_vocabulary(folder / "flava_demo" / "tokenizer")
    for name in EXPECTED:
        write_tsv(folder / "glue", name, train=64, dev=24, test=7)
    return folder


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in TRAINED_BY_COMMAND])
def test_small_variant_trains(data, tmp_path, name, monkeypatch):
    """Two updates in this process."""
    monkeypatch.setenv("MMF_SAVE_DIR", str(tmp_path))
    registry.unregister("glue_text_processor")  # MMF keeps the first processor built in a process
    run([f"config={RECIPES / f'demo_{name}.yaml'}", "training.max_updates=2", f"env.data_dir={data}"])
    evaluation = json.loads((tmp_path / f"demo_glue_{name}" / "evaluation.json").read_text())
    assert (evaluation["task"], evaluation["split"], evaluation["update"]) == (name, "val", 2)
    assert sorted(evaluation["metrics"]) == sorted(EXPECTED[name][-1])


def test_commands_write_scores_table_and_submission(mmf, data, tmp_path, capsys):
    """mmf_run, the table and mmf_predict for single sentences (CoLA), pairs with F1 (MRPC) and regression (STS-B)."""
    folders = {}
    for name in TRAINED_BY_COMMAND:
        folders[name] = tmp_path / name
        recipe = {"config": str(RECIPES / f"demo_{name}.yaml")}
        options = [f"env.data_dir={data}", f"env.save_dir={folders[name]}", "training.max_updates=60"]
        result = mmf("mmf_run", *options, **recipe)
        assert result.returncode == 0, result.stderr[-2000:]
    assert main([*map(str, folders.values()), "--format", "csv"]) == 0
    table = {line["task"]: line["ours"] for line in csv.DictReader(capsys.readouterr().out.splitlines())}
    scores = {row: score for row, score in table.items() if score != "not run"}
    assert scores.keys() == {"CoLA", "MRPC", "STS-B"}
    assert min(map(float, scores.values())) > 70

    options = [f"env.data_dir={data}", f"env.save_dir={folders['mrpc']}", "run_type=test", "checkpoint.resume=true"]
    result = mmf("mmf_predict", *options, "checkpoint.resume_best=true", config=str(RECIPES / "demo_mrpc.yaml"))
    assert result.returncode == 0, result.stderr[-2000:]
    lines = (folders["mrpc"] / "submission" / "MRPC.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{n}\t{n % 2}" for n in range(7))]
