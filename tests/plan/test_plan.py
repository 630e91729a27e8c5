"""``mmf_flava.plan``: data, updates and learning rate of a run, timed updates, and all that is missing at once."""

import re

import pytest
import torch

from mmf_flava.config.recipes import recipe_path
from mmf_flava.plan.__main__ import main
from mmf_flava.plan.report import disk_line

DEMO = recipe_path("demo")
WRONG = """
model: flava
dataset: pmd,ccnews_bookcorpus
dataset_config:
  pmd:
    data_dir: /nowhere/pairs
    splits: {train: [coco]}
    processors: {text_processor: {params: {tokenizer: ./tokens}}}
  ccnews_bookcorpus:
    data_dir: /nowhere/text
    block_size: 32
    splits: {train: [news]}
    processors: {text_processor: {params: {tokenizer: ./tokens}}}
training: {batch_sise: 3, precision: fp17, sharding: fsdp}
optimizer: {params: {lr: -1}}
model_config: {flava: {codebook: {type: kmeans, path: codebook.safetensors}, image_encoder: {hiden_size: 3}}}
"""


@pytest.fixture
def plan(cache, tmp_path, monkeypatch, capsys):
    """Return ``plan(recipe, ...)``, which returns the exit code and the printed lines."""
    monkeypatch.setenv("MMF_CACHE_DIR", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmf_flava.plan.timing.TIMED", 1)

    def run(recipe, *arguments):
        threads = torch.get_num_threads()
        code = main([str(recipe), f"env.cache_dir={cache}", *arguments])
        torch.set_num_threads(threads)
        return code, capsys.readouterr().out

    return run


def test_a_pretraining_is_planned_and_its_folder_is_not_touched(plan, tmp_path):
    code, out = plan(DEMO, "training.num_workers=0", f"env.save_dir={tmp_path / 'run'}", "training.batch_size=16")
    assert code == 0 and "Nothing is missing. Start: mmf_run config=" in out
    updates = {name: int(n.replace(",", "")) for name, n in re.findall(r"  (\w+): .*?; ([\d,]+) updates", out)}
    assert sum(updates.values()) == 1800 and 0.66 < updates["pmd"] / 1800 < 0.74
    samples, epochs = 16 * updates["pmd"], 16 * updates["pmd"] / 1300
    line = (
        f"pmd: 1,300 records (val 137, test 360); {updates['pmd']:,} updates, {samples:,} samples, {epochs:.1f} epochs"
    )
    assert line in out and "Updates: 1,800 of 16 samples, 28,800 samples" in out
    assert "peak 0.001 at update 50 of 1,800 after a warm-up of 50 updates and" in out
    assert "per process estimated for a batch of 16 samples of pmd;" in out and "measured on CPU with 16 samples" in out
    assert re.search(r"Disk: 4 checkpoints of 20\.\d MB in .*/run are 82\.\d MB; .* are free", out)
    assert re.search(r"Time: .*, from timed updates of 16 samples on CPU \(pmd .*, imagenet .*\), without", out)
    assert not (tmp_path / "run").exists() and not (tmp_path / "save").exists()


def test_a_finetuning_of_epochs_is_planned(plan):
    recipe = recipe_path("finetune/demo_imagenet")
    code, out = plan(recipe, "training.max_epochs=2", "training.num_workers=0", "--no-timing")
    assert code == 0 and "Updates: 82 of 32 samples" in out
    assert "82 updates, 2,624 samples, 2.0 epochs" in out and "Time:" not in out


def test_everything_that_is_missing_is_listed_at_once(plan, tmp_path):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(WRONG)
    code, out = plan(recipe, "training.max_updatez=3", "--processes", "2")
    assert code == 2
    problems = [line for line in out.splitlines() if line.startswith("  - ")]
    expected = (
        "did you mean training.max_updates?",
        "'batch_sise' is not a key of training. Did you mean 'batch_size'?",
        "training.precision: must be one of fp32, bf16, fp16, got 'fp17'.",
        "optimizer.params.lr: must be at least 0, got -1.",
        "'hiden_size' is not a key of model_config.flava.image_encoder.",
        "splits.train: /nowhere/pairs/coco does not exist. Create it with `python -m mmf_flava.data.prepare pmd",
        "splits.train: /nowhere/text/news does not exist. Create it with `python -m mmf_flava.data.prepare text",
        "`python -m mmf_flava.data.prepare tokenizer --src",
        "`python -m mmf_flava.data.prepare codebook --src",
    )
    for text in expected:
        assert sum(text in problem for problem in problems) == 1, (text, problems)
    assert len(problems) == len(expected) and f"Missing or wrong ({len(problems)}):" in out


def test_a_recipe_that_is_not_found_is_an_error(plan, capsys):
    code, out = plan("nowhere.yaml")
    assert code == 2 and "nowhere.yaml was not found" in out


def test_checkpoints_that_do_not_fit_on_the_disk_are_a_problem(tmp_path):
    from omegaconf import OmegaConf

    training = {"max_updates": 1000, "checkpoint_interval": 100}
    config = OmegaConf.create({"checkpoint": {"max_to_keep": 3}, "training": training})
    assert disk_line(config, 1000, tmp_path / "run")[1] is None
    line, problem = disk_line(config, 10**17, tmp_path / "run")
    assert line.startswith("Disk: 4 checkpoints of") and problem.startswith("env.save_dir: checkpoints need")
