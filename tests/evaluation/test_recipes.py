"""What the recipes of zero-shot classification, linear probes and retrieval say is what the paper and the sets say."""

import re
from pathlib import Path

import pytest

from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.schema import parse
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.image_sets.catalogue import SETS
from mmf_flava.evaluation.linear_probe import check
from mmf_flava.evaluation.prompts import Prompts, by_name
from mmf_flava.evaluation.table.paper import paper_table, rows
from mmf_flava.training.settings import read_settings

PROJECT = Path(__file__).parents[2] / "projects" / "flava"
CONFIGS = PROJECT / "configs"
ZERO_SHOT = sorted((CONFIGS / "zero_shot").glob("*.yaml"))
LINEAR_PROBE = sorted((CONFIGS / "linear_probe").glob("*.yaml"))
IMAGE_SETS = sorted((CONFIGS / "datasets" / "image_classification").glob("*.yaml"))


def test_every_image_set_of_the_paper_has_a_zero_shot_recipe_and_a_linear_probe():
    names = {path.stem for path in IMAGE_SETS}
    assert len(names) == 22  # section 7's list, as in Table C.1
    assert {path.stem for path in ZERO_SHOT} == {*names, "demo_digits"}
    assert {path.stem for path in LINEAR_PROBE} == {*names, "demo_digits"}


@pytest.mark.parametrize("path", ZERO_SHOT, ids=lambda path: path.stem)
def test_what_a_zero_shot_recipe_says(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (settings.evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/zero_shot/{path.stem}")
    assert config.checkpoint.resume_pretrained
    assert parse(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    if section.source is not None:
        splits = [split for listed in section.splits.values() for split in listed]
        assert len(splits) == len({*splits}) >= 2
        assert {*splits} <= {*SETS[section.source].splits}
    zero_shot = settings.evaluation.zero_shot
    found = Prompts(zero_shot.classes, zero_shot.templates) if zero_shot.prompts is None else by_name(zero_shot.prompts)
    assert found.templates
    if path.stem != "demo_digits":
        said = re.search(r": [\d,]+ images, ([\d,]+) classes", path.read_text())[1]
        listed = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
        assert f": {said} classes; the test split has" in listed
        assert len(found.classes) in (0, int(said.replace(",", "")))


@pytest.mark.parametrize("path", LINEAR_PROBE, ids=lambda path: path.stem)
def test_what_a_linear_probe_says(path, monkeypatch):
    monkeypatch.setenv("MMF_SAVE_DIR", "/elsewhere")
    config = read_recipe(str(path))
    section, settings = config.dataset_config.image_classification, read_settings(config)
    evaluation = settings.evaluation
    assert (config.model, config.datasets, config.run_type) == ("flava", "image_classification", "test")
    assert (evaluation.task, config.env.save_dir) == (path.stem, f"/elsewhere/linear_probe/{path.stem}")
    assert (evaluation.losses, evaluation.features_dir) == (False, f"{config.env.cache_dir}/flava_features")
    assert config.checkpoint.resume_pretrained
    assert parse(FlavaConfig, config.model_config.flava, "model_config.flava").losses == []
    check(evaluation.linear_probe, settings.datasets)
    by_class = path.stem in ("aircraft", "caltech101", "flowers102", "pets")  # CLIP's
    assert evaluation.linear_probe.metric == ("mean_per_class" if by_class else "accuracy")
    train, val, test = (section.splits[split] or [] for split in ("train", "val", "test"))
    assert train and test and len({*train, *val, *test}) == len(train + val + test)
    if section.source is not None:
        published = {*SETS[section.source].splits}
        assert {*train, *val, *test} <= published
        assert {*val} == {"val", "valid"} & published - {*test}  # a set's own, where it has one
    if path.stem == "demo_digits":
        return
    assert evaluation.linear_probe.lambdas == [1e-6, 1e6] and evaluation.linear_probe.max_iterations == 1000
    said = path.read_text()
    images, classes = re.search(r" and ([\d,]+) test images, ([\d,]+) classes", said).groups()
    listed = (CONFIGS / "datasets" / "image_classification" / path.name).read_text()
    assert f": {classes} classes; the test split has {images} images" in listed
    (row,) = (row.name for row in rows() if row.section == "linear_probe" and (path.stem,) in row.tasks)
    score = f"{paper_table('table_c1').cells[row]['FLAVA']:.2f}"
    assert f", estimated; measured: not run. Paper: accuracy {score} (Table C.1, column 12)." in said
    (line,) = (
        line for line in (PROJECT / "README.md").read_text().splitlines() if f"linear_probe/{path.name})" in line
    )
    assert line.endswith(f" | {images} | {re.search(r'accelerator, (.*?);', said)[1]} | not run | {score} |")


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_what_a_retrieval_recipe_says(name):
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
    parse(FlavaConfig, config.model_config.flava, "model_config.flava")
    score = re.search(r"# Paper: (.*) \(Table C\.1, column 12\)", path.read_text())
    assert score is not None and score[1] in (PROJECT / "README.md").read_text()
