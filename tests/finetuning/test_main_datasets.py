"""MMF's main branch: its ``glue_*`` and raw-image datasets with our model, processors and trainer."""

import json
import sys
from types import ModuleType

import pytest
from mmf.common.registry import registry
from mmf_cli.run import run as mmf_run

from mmf_flava.config.recipes import recipe_path
from tests.mmf_versions import needs_main

pytestmark = needs_main

SIZES = recipe_path("finetune/parts/demo")

TEXTS = {
    "sst2": ("sentence",),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "mnli_mismatched": ("premise", "hypothesis"),
}
LABELS = {"sst2": 2, "qnli": 2, "qqp": 2, "mnli_mismatched": 3}
GLUE = """\
includes:
- {sizes}
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
  trainer: flava
  early_stop: {{criteria: {dataset}/accuracy, minimize: false}}
evaluation:
  task: {dataset}
  metrics: [accuracy]
"""
RAW_IMAGES = """\
includes:
- {config}
- {sizes}
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
{others}training:
  trainer: {trainer}
  early_stop: {{criteria: {dataset}/{metric}, minimize: false}}
evaluation:
  metrics: [{metric}]
"""


@pytest.fixture
def hub(monkeypatch):
    """Replace the package ``datasets`` by a few rows of GLUE; return the list of requests."""
    requests = []

    def load_dataset(path, name, split):
        requests.append((path, name, split))
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
    return requests


@pytest.fixture
def run(toy_data, tmp_path):
    """Return ``run(recipe_text, "key=value", ...)``, which runs a recipe and returns its run folder."""

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
def test_mmfs_glue_is_learnt(run, hub, task):
    registry.unregister(f"glue_{task}_text_processor")  # MMF keeps the first processor built in a process
    folder = run(GLUE.format(sizes=SIZES, dataset=f"glue_{task}", labels=LABELS[task]), "training.max_updates=40")
    found = evaluation(folder)
    assert (found["task"], found["split"]) == (f"glue_{task}", "val")
    assert found["metrics"]["accuracy"] > 0.9
    trained = "mnli" if task.startswith("mnli") else task
    assert set(hub) == {("glue", trained, "train"), ("glue", task, "validation"), ("glue", task, "test")}


def test_unlabelled_split_of_mmfs_glue_is_not_evaluated(run, hub):
    registry.unregister("glue_sst2_text_processor")
    folder = run(
        GLUE.format(sizes=SIZES, dataset="glue_sst2", labels=2), "training.max_updates=1", "run_type=train_val_test"
    )
    assert evaluation(folder)["split"] == "val"
    assert "The test split of glue_sst2 has no labels" in (folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("dataset", "config", "labels", "loss", "metric"),
    [
        ("vqa2", "configs/datasets/vqa2/with_raw_images.yaml", 8, "logit_bce", "vqa_accuracy"),
        ("hateful_memes", "configs/datasets/hateful_memes/defaults.yaml", 2, "cross_entropy", "accuracy"),
    ],
)
@pytest.mark.parametrize("trainer", ["flava", "mmf"])
def test_raw_images_with_mmfs_configs(run, dataset, config, labels, loss, metric, trainer):
    for processor in ("image_processor", "text_processor", "answer_processor"):
        registry.unregister(f"{dataset}_{processor}")
    others = "      context_processor: null\n" if dataset == "vqa2" else ""
    text = RAW_IMAGES.format(
        sizes=SIZES,
        dataset=dataset,
        config=config,
        labels=labels,
        loss=loss,
        metric=metric,
        trainer=trainer,
        others=others,
    )
    folder = run(text, "training.max_updates=2", "training.evaluation_interval=2")
    assert (folder / {"flava": "checkpoints/best", "mmf": "best.ckpt"}[trainer]).is_file()
    assert (folder / "evaluation.json").is_file() == (trainer == "flava")
