"""The finetuning recipes agree with the paper and with the table of recipes."""

from dataclasses import fields
from pathlib import Path

import pytest
from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml

from mmf_flava.config.model import ClassificationConfig, CoreConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.evaluation.table.paper import table_rows

PROJECT = Path(__file__).parents[2] / "projects" / "flava"
CONFIGS = PROJECT / "configs"
FINETUNE = CONFIGS / "finetune"
# recipe: dataset, task, labels, loss, updates, batch size, learning rate, image size, metrics
FINETUNED = {
    "hateful_memes": ("hateful_memes", "hateful_memes", 2, "cross_entropy", 24_000, 256, 1e-5, 224, "roc_auc accuracy"),
    "snli_ve": ("visual_entailment", "snli_ve", 3, "cross_entropy", 24_000, 256, 1e-5, 224, "accuracy macro_f1"),
    "vqa2": ("vqa2", "vqav2", 3129, "logit_bce", 44_000, 256, 1e-4, 480, "vqa_accuracy"),
    "imagenet": ("image_classification", None, 1000, "cross_entropy", 25_000, 1024, 1e-4, 224, "accuracy"),
}


@pytest.mark.parametrize("path", sorted(FINETUNE.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_header_has_its_command_and_readme_has_a_row(path):
    name = path.stem.removeprefix("demo_")
    if name == "defaults":
        return
    header = path.read_text().partition("\nincludes:")[0].partition("\nmodel:")[0]
    assert f"mmf_run config=projects/flava/configs/{path.relative_to(CONFIGS)}" in header.replace(
        "$(which mmf_run)", "mmf_run"
    )
    assert name in (*FINETUNED, "own") and (FINETUNE / f"demo_{name}.yaml").is_file()
    assert f"](configs/finetune/{name}.yaml)" in (PROJECT / "README.md").read_text()
    if path.stem == name:
        assert "accelerator hours), estimated; measured: not run" in header and "\n# Paper: " in header


@pytest.mark.parametrize("name", FINETUNED)
def test_recipe_settings(name):
    registry.unregister("config")  # MMF would use the folders of another test's config
    config = read_recipe(str(FINETUNE / f"{name}.yaml"))
    dataset, task, labels, loss, updates, batch_size, rate, size, metrics = FINETUNED[name]
    training, optimizer = config.training, config.optimizer
    assert (config.model, config.datasets, config.evaluation.task) == ("flava_classification", dataset, task)
    assert (training.trainer, training.max_updates, training.batch_size) == ("flava", updates, batch_size)
    assert (optimizer.type, optimizer.params.lr, config.scheduler.type) == ("AdamW", rate, "warmup_cosine")
    assert (training.early_stop.criteria, training.early_stop.minimize) == (f"{dataset}/{metrics.split()[0]}", False)
    assert config.evaluation.metrics == metrics.split()
    section = {key: value for key, value in config.model_config.flava_classification.items() if key != "model"}
    settings = parse_section(ClassificationConfig, section, "model_config.flava_classification")
    assert (settings.num_labels, settings.losses, settings.image_encoder.image_size) == (labels, [{"type": loss}], size)
    assert settings.pretrained == "facebook/flava-full"
    assert config.dataset_config[dataset].processors.image_processor.params.image_size == size
    if task is not None:  # settings of the paper (B.2)
        assert (settings.classifier.hidden_size, settings.classifier.num_layers) == (1536, 2)
        assert (optimizer.params.weight_decay, config.scheduler.params.num_warmup_steps) == (0.01, 2000)
        assert task in {one for row in table_rows() for tasks in row.tasks for one in tasks}


def test_the_recipe_of_own_data_leaves_labels_to_the_data():
    config = load_yaml(str(FINETUNE / "own.yaml"))
    model = config.model_config.flava_classification
    assert (model.num_labels, model.losses, config.evaluation.metrics) == (None, None, None)
    assert (config.dataset, config.evaluation.predict_file_format) == ("image_text_classification", "csv")
    assert "pretrained" not in model  # facebook/flava-full, by finetune/defaults.yaml


def test_model_sizes_equal_those_of_pretraining():
    defaults = load_yaml(str(FINETUNE / "defaults.yaml")).model_config.flava_classification
    core = [field.name for field in fields(CoreConfig)]
    pretraining = load_yaml(str(CONFIGS / "models" / "flava_base.yaml")).model_config.flava
    assert {name: defaults[name] for name in core} == {name: pretraining[name] for name in core}
    small = load_yaml(str(FINETUNE / "parts" / "demo.yaml")).model_config.flava_classification
    demo = load_yaml(str(CONFIGS / "models" / "flava_demo.yaml")).model_config.flava
    assert {name: small[name] for name in core if name in small} == {name: demo[name] for name in core if name in demo}
