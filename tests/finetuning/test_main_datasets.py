"""Datasets of MMF's main branch with our model, processors and trainer: its own GLUE, and raw images by its configs."""

import json
import sys
from types import ModuleType

import pytest
from mmf.common.registry import registry
from mmf_cli.run import run as mmf_run

from tests.lines import needs_main

pytestmark = needs_main

TEXTS = {
    "sst2": ("sentence",),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "mnli_mismatched": ("premise", "hypothesis"),
}
LABELS = {"sst2": 2, "qnli": 2, "qqp": 2, "mnli_mismatched": 3}
GLUE = """\
includes:
- ./projects/flava/configs/finetune/parts/demo.yaml
model: flava_classification
dataset: {dataset}
model_config:
  flava_classification:
    num_labels: {labels}
dataset_config:
  {dataset}:
    processors:
      text_processor:
        type: flava_tokens
        params: {{tokenizer: "${{env.data_dir}}/flava_demo/tokenizer", max_length: 24}}
training:
  trainer: flava_finetune
  early_stop: {{criteria: {dataset}/accuracy, minimize: false}}
evaluation:
  task: {dataset}
  metrics: [accuracy]
"""
RAW_IMAGES = """\
includes:
- {config}
- ./projects/flava/configs/finetune/parts/demo.yaml
model: flava_classification
dataset: {dataset}
model_config:
  flava_classification:
    num_labels: {labels}
    losses: [{{type: {loss}}}]
dataset_config:
  {dataset}:
    processors:
      image_processor:
        params:
          transforms:
          - type: Resize
            params: {{size: [24, 24]}}
          - ToTensor
          - GrayScaleTo3Channels
      text_processor:
        type: flava_tokens
        params: {{tokenizer: "${{env.data_dir}}/flava_demo/tokenizer", max_length: 24}}
      context_processor: null
training:
  trainer: {trainer}
  early_stop: {{criteria: {dataset}/{metric}, minimize: false}}
evaluation:
  metrics: [{metric}]
"""


@pytest.fixture
def hub(monkeypatch):
    """Stands for the package ``datasets``: a few rows of GLUE, and what was asked for."""
    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        fields = TEXTS["mnli_mismatched" if name == "mnli" else name]
        labels = LABELS["mnli_mismatched" if name == "mnli" else name]
        words = ("red", "blue", "green")
        return [
            {**dict.fromkeys(fields, f"a {words[n % labels]} square"), "label": -1 if split == "test" else n % labels}
            for n in range({"train": 96, "validation": 30, "test": 4}[split])
        ]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


@pytest.fixture
def run(toy_data, tmp_path):
    """``run(recipe, "key=value", ...)`` runs a recipe's text and returns the folder that it leaves."""

    def run(text, *options):
        registry.unregister("config")
        config = tmp_path / "recipe.yaml"
        config.write_text(text)
        mmf_run([f"config={config}", f"env.data_dir={toy_data}", f"env.save_dir={tmp_path / 'run'}", *options])
        return tmp_path / "run"

    return run


def evaluation(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize("task", TEXTS)
def test_its_glue_is_learnt(run, hub, task):
    registry.unregister(f"glue_{task}_text_processor")  # MMF keeps the first one that a process ever built
    folder = run(GLUE.format(dataset=f"glue_{task}", labels=LABELS[task]), "training.max_updates=40")
    found = evaluation(folder)
    assert (found["task"], found["split"]) == (f"glue_{task}", "val")
    assert found["metrics"]["accuracy"] > 0.9
    trained = "mnli" if task.startswith("mnli") else task
    assert set(hub) == {("glue", trained, "train"), ("glue", task, "validation"), ("glue", task, "test")}


def test_a_split_of_its_glue_without_labels_is_left_alone(run, hub):
    registry.unregister("glue_sst2_text_processor")
    folder = run(GLUE.format(dataset="glue_sst2", labels=2), "training.max_updates=1", "run_type=train_val_test")
    assert evaluation(folder)["split"] == "val"
    assert "The test split has no labels" in (folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("dataset", "config", "labels", "loss", "metric"),
    [
        ("vqa2", "configs/datasets/vqa2/with_raw_images.yaml", 8, "logit_bce", "vqa_accuracy"),
        ("hateful_memes", "configs/datasets/hateful_memes/defaults.yaml", 2, "cross_entropy", "accuracy"),
    ],
)
@pytest.mark.parametrize("trainer", ["flava_finetune", "mmf"])
def test_raw_images_by_its_own_configs(run, dataset, config, labels, loss, metric, trainer):
    for processor in ("image_processor", "text_processor", "answer_processor"):
        registry.unregister(f"{dataset}_{processor}")
    recipe = RAW_IMAGES.format(dataset=dataset, config=config, labels=labels, loss=loss, metric=metric, trainer=trainer)
    folder = run(recipe, "training.max_updates=2", "training.evaluation_interval=2")
    assert (folder / "best.ckpt").is_file()
    assert (folder / "evaluation.json").is_file() == (trainer == "flava_finetune")
