"""The recipes of zero-shot classification, linear probes and retrieval match the paper and the datasets."""

import re
from pathlib import Path

import pytest

from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.image_sets.catalogue import IMAGE_SETS
from mmf_flava.evaluation.linear_probe import check_config
from mmf_flava.evaluation.prompts import Prompts, load_packaged_prompts
from mmf_flava.evaluation.table.paper import paper_table, table_rows
from mmf_flava.training.settings import read_settings

PROJECT = Path(__file__).parents[2] / "projects" / "flava"
CONFIGS = PROJECT / "configs"
ZERO_SHOT = sorted((CONFIGS / "zero_shot").glob("*.yaml"))
LINEAR_PROBE = sorted((CONFIGS / "linear_probe").glob("*.yaml"))
IMAGE_RECIPES = sorted((CONFIGS / "datasets" / "image_classification").glob("*.yaml"))


def test_every_image_dataset_of_the_paper_has_both_recipes():
    names = {path.stem for path in IMAGE_RECIPES}
    assert len(names) == 22  # the datasets of Table C.1
    assert {path.stem for path in ZERO_SHOT} == {*names, "demo_digits"}
    assert {path.stem for path in LINEAR_PROBE} == {*names, "demo_digits"}


@pytest.mark.parametrize("path", ZERO_SHOT, ids=lambda path: path.stem)
def test_zero_shot_recipe(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (settings.evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/zero_shot/{path.stem}")
    assert config.checkpoint.resume_pretrained
    assert parse_section(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    if section.source is not None:
        splits = [split for listed in section.splits.values() for split in listed or ()]
        assert len(splits) == len({*splits}) >= 2
        assert {*splits} <= {*IMAGE_SETS[section.source].splits}
    zero_shot = settings.evaluation.zero_shot
    prompts = Prompts(zero_shot.classes, zero_shot.templates)
    if zero_shot.prompts is not None:
        prompts = load_packaged_prompts(zero_shot.prompts)
    assert prompts.templates
    if path.stem != "demo_digits":
        count = re.search(r": [\d,]+ images, ([\d,]+) classes", path.read_text())[1]
        header = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
        assert f": {count} classes; the test split has" in header
        assert len(prompts.classes) in (0, int(count.replace(",", "")))


@pytest.mark.parametrize("path", LINEAR_PROBE, ids=lambda path: path.stem)
def test_linear_probe_recipe(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    evaluation = settings.evaluation
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/linear_probe/{path.stem}")
    assert (evaluation.losses, evaluation.features_dir) == (False, f"{config.env.cache_dir}/flava_features")
    assert config.checkpoint.resume_pretrained
    assert parse_section(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    check_config(evaluation.linear_probe, settings.datasets)
    per_class = path.stem in ("aircraft", "caltech101", "flowers102", "pets")  # as in CLIP
    assert evaluation.linear_probe.metric == ("mean_per_class" if per_class else "accuracy")
    train, val, test = (section.splits[split] or [] for split in ("train", "val", "test"))
    assert train and test and len({*train, *val, *test}) == len(train + val + test)
    if section.source is not None:
        published = {*IMAGE_SETS[section.source].splits}
        assert {*train, *val, *test} <= published
        assert {*val} == {"val", "valid"} & published - {*test}  # the dataset's val split, if it has one
    if path.stem == "demo_digits":
        return
    assert evaluation.linear_probe.lambdas == [1e-6, 1e6] and evaluation.linear_probe.max_iterations == 1000
    recipe = path.read_text()
    images, classes = re.search(r" and ([\d,]+) test images, ([\d,]+) classes", recipe).groups()
    header = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
    assert f": {classes} classes; the test split has {images} images" in header
    (row,) = (row.name for row in table_rows() if row.section == "linear_probe" and (path.stem,) in row.tasks)
    score = f"{paper_table('table_c1').cells[row]['FLAVA']:.2f}"
    assert f", estimated; measured: not run. Paper: accuracy {score} (Table C.1, column 12)." in recipe
    (line,) = (
        line for line in (PROJECT / "README.md").read_text().splitlines() if f"linear_probe/{path.name})" in line
    )
    assert line.endswith(f" | {images} | {re.search(r'accelerator, (.*?);', recipe)[1]} | not run | {score} |")


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_retrieval_recipe(name):
    path = CONFIGS / "retrieval" / f"{name}.yaml"
    config = read_recipe(str(path))
    settings = read_settings(config)
    assert (config.run_type, settings.datasets, settings.evaluation.task) == ("test", ["karpathy"], name)
    recall = settings.evaluation.retrieval
    assert (recall.dataset, recall.recall_at[:2], recall.rerank, recall.merge_equal_captions) == (
        "karpathy",
        [1, 5],
        0,
        False,
    )
    data = config.dataset_config.karpathy
    assert (data.splits.test, data.captions_per_image) == ([f"dataset_{name}.json"], 5)
    parse_section(FlavaConfig, config.model_config.flava, "model_config.flava")
    score = re.search(r"# Paper: (.*) \(Table C\.1, column 12\)", path.read_text())
    assert score is not None and score[1] in (PROJECT / "README.md").read_text()
