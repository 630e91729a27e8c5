"""The check of a config before torch and MMF are imported builds the same config, and refuses nothing else."""

import argparse
import subprocess
import sys
from pathlib import Path

import mmf
import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

import mmf_flava
from mmf_flava.compat import early_config
from mmf_flava.compat.behaviour import command_line
from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.compat.optimizer_check import torch_optimizers
from mmf_flava.compat.source_names import optimizer_names, read_names_of
from mmf_flava.config.recipes import recipe_path
from mmf_flava.errors import UserError

MMF, TORCH = Path(mmf.__file__).parent, Path(torch.__file__).parent
KINDS = ("trainer", "scheduler", "loss", "metric", "optimizer", "model", "builder", "processor")
RECIPES = ("demo", "pretrain/flava", "zero_shot/imagenet", "retrieval/coco", "finetune/glue/demo_rte",
           "finetune/hateful_memes", "finetune/demo_vqa2", "finetune/demo_imagenet")  # fmt: skip


@pytest.fixture(scope="module")
def names():
    setup_imports()
    return read_names_of(MMF, Path(mmf_flava.__file__).parent)


def build_late(*options: str) -> dict:
    return Configuration(argparse.Namespace(config_override=None, opts=list(options))).config


@pytest.mark.parametrize("kind", KINDS)
def test_names_in_the_source_are_the_registered_names(names, kind):
    classes = registry.mapping[f"{kind}_name_mapping"].items()
    # without the classes of other tests
    registered = {name for name, cls in classes if cls.__module__.startswith(("mmf.", "mmf_flava."))}
    # MMF does not import modules whose optional dependencies are missing
    assert names.of(kind) >= registered
    if MMF_VERSION == "rc10":
        assert names.of(kind) == registered


def test_names_of_torch_optimizers():
    assert optimizer_names(TORCH) == set(torch_optimizers())


@pytest.mark.parametrize("kind", ["model", "builder"])
def test_default_files_are_those_of_the_classes(names, kind):
    for name, cls in registry.mapping[f"{kind}_name_mapping"].items():
        if not cls.__module__.startswith(("mmf.", "mmf_flava.")):
            continue  # a class of another test
        path = early_config._defaults_path(names, kind, name)
        assert path is None or str(cls.config_path()).endswith(path), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_config_is_the_one_that_mmf_builds(names, recipe):
    options = [f"config={recipe_path(recipe)}", "training.seed=3", "learning_rate=0.5", "training.device=cpu"]
    with early_config.resolvers():
        early = early_config.build(options, MMF, names)
    late = build_late(*options)
    # MMF's main branch resolves interpolations
    assert OmegaConf.to_container(early.values, resolve=MMF_VERSION == "main") == OmegaConf.to_container(late)


MISTAKES = [
    ("demo", "training.batch_sizes=3"),
    ("demo", "training.batch_size=text"),
    ("demo", "training.batch_size=0"),
    ("demo", "training.trainer=flav"),
    ("demo", "training.device=cuad"),
    ("demo", "model=flavva"),
    ("demo", "dataset=pmdd"),
    ("demo", "optimizer.type=AdamV"),
    ("demo", "optimizer.params.lrr=3"),
    ("demo", "scheduler.type=warmup_cosin"),
    ("demo", "model_config.flava.losses=[{type: flava_mi}]"),
    ("finetune/demo_vqa2", "evaluation.metrics=[acuracy]"),
    ("finetune/demo_vqa2", "evaluation.metrics=[{key: accuracy}]"),
    ("demo", "evaluation.task=cifar"),
    ("demo", "dataset_config.pmd.processors.image_processor.type=flava_imge"),
    ("demo", "dataset_config.pmd.processors.image_processor.params.image_size=25"),
    ("demo", "dataset_config.pmd.mismatch_probability=2"),
    ("finetune/glue/demo_rte", "dataset_config.glue.task=rt"),
    ("finetune/demo_vqa2", "model_config.flava_classification.freeze=[head]"),
    ("finetune/demo_vqa2", "evaluation.zero_shot={dataset: pmd}"),
]
if MMF_VERSION == "rc10":  # the strategies of MMF's main branch are registered classes
    MISTAKES.append(("demo", "multitasking.params={sampling_ratio: {pmd: 1}}"))


@pytest.mark.parametrize(("recipe", "option"), MISTAKES, ids=[option for _, option in MISTAKES])
def test_message_is_that_of_the_complete_check(names, recipe, option):
    options = [f"config={recipe_path(recipe)}", option]
    with pytest.raises(UserError) as early:
        early_config.check(options, MMF, TORCH)
    with pytest.raises(UserError) as late:
        build_late(*options)
    assert str(early.value) == str(late.value)
    assert "\n" not in str(early.value)


USER = """
includes: [{demo}]
env: {{user_dir: {folder}}}
"""


@pytest.mark.parametrize(
    "text",
    [
        "model: my_model",
        "dataset: my_data",
        "training: {trainer: my_trainer}",
        "optimizer: {type: MyOptimizer}",
        "training: {batch_size: '${my_resolver:3}'}",
        "model_config: {flava: {losses: [{type: my_loss}]}}",
        "dataset_config: {pmd: {processors: {image_processor: {type: my_processor, params: {my_size: 1}}}}}",
        "my_section: {a: 1}",
    ],
)
def test_names_that_the_user_may_register_are_left_to_the_complete_check(tmp_path, names, text):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(USER.format(demo=recipe_path("demo"), folder=tmp_path) + text)
    early_config.check([f"config={recipe}"], MMF, TORCH)


def test_keys_are_checked_also_with_user_code(tmp_path, names):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(USER.format(demo=recipe_path("demo"), folder=tmp_path) + "training: {batch_sizes: 1}")
    with pytest.raises(UserError, match="batch_sizes"):
        early_config.check([f"config={recipe}"], MMF, TORCH)


def test_unexpected_errors_are_left_to_the_complete_check(monkeypatch):
    def fail(*arguments):
        raise KeyError("defect")

    monkeypatch.setattr(early_config, "check", fail)
    command_line.check_config()


@pytest.mark.parametrize("script", ["mmf_run", "mmf_predict"])
def test_mistake_is_reported_before_torch_is_imported(script):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(Path(sys.executable).parent / script),
         f"config={recipe_path('demo')}", "training.batch_sizes=3"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(messages) == 1 and messages[0].startswith("mmf_flava: Unknown option"), messages
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omegaconf" in imported and not imported & {"torch", "mmf", "mmf.common"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: save", r"^env: must be a section"),
        ("training: null", r"^training: must be a section"),
        ("dataset_config: null", r"^dataset_config: must be a section"),
        ("scheduler: cosine", r"^scheduler: must be a section"),
        ("dataset_config: {pmdd: {}}", r"^'pmdd' is not a key of dataset_config\. Did you mean 'pmd'\?"),
        ("trainer: flava", r"trainer is a section|trainer: must be a section"),  # a section on MMF's main branch only
        ("config: a.yaml\nconfig_version: 1", r"is the complete config of a run, no recipe\. Use .* config=a\.yaml"),
        ("config: other.yaml", r"config is an option of the command line\. Use `includes: \[other\.yaml\]`"),
        ("dataset: {pmd: 1}", r"^datasets: must be names"),
    ],
)
def test_invalid_sections_of_a_recipe(tmp_path, names, text, message):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(f"includes: [{recipe_path('demo')}]\n{text}")
    with pytest.raises(UserError, match=message):
        early_config.check([f"config={recipe}"], MMF, TORCH)
    with pytest.raises(UserError, match=message):
        build_late(f"config={recipe}")
