"""Which runs are FLAVA's own."""

import argparse
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports

from mmf_flava.compat import flava_run
from mmf_flava.compat.flava_run import DATASETS, MODELS, TRAINERS, is_flava_run, options_are_flava

DEMO = "projects/flava/configs/demo.yaml"


def test_names_are_those_that_the_plugin_registers():
    setup_imports()

    def registered(kind: str) -> set[str]:
        mapping = registry.mapping[f"{kind}_name_mapping"]
        return {name for name, entry in mapping.items() if entry.__module__.startswith("mmf_flava.")}

    assert registered("model") == MODELS
    assert registered("trainer") == TRAINERS
    assert registered("builder") == DATASETS


@pytest.mark.parametrize(
    ("model", "trainer", "datasets", "expected"),
    [
        ("flava", None, ["vqa2"], True),
        ("cnn_lstm", "flava", ["clevr"], True),
        ("cnn_lstm", "mmf", ["clevr", "pmd"], True),
        ("cnn_lstm", "mmf", ["clevr"], False),
        (None, None, [], False),
    ],
)
def test_model_trainer_or_dataset_decides(model, trainer, datasets, expected):
    assert is_flava_run(model, trainer, datasets) is expected


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """``recipe("model: x")`` writes x.yaml into the working directory."""
    monkeypatch.chdir(tmp_path)
    return lambda text, name="x.yaml": Path(name).write_text(text)


def test_options(recipe):
    assert options_are_flava([f"config={DEMO}", "training.max_updates=3"])
    assert options_are_flava(["config", DEMO])
    assert options_are_flava(["model=flava_classification", "dataset=vqa2"])
    assert options_are_flava(["model=cnn_lstm", "datasets=clevr,pmd"])
    assert not options_are_flava(["model=cnn_lstm", "dataset=clevr", "training.max_updates=3"])
    assert not options_are_flava(["config=projects/others/cnn_lstm/clevr/defaults.yaml", "model=cnn_lstm"])
    assert not options_are_flava([])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: flava", True),
        ("training: {trainer: flava_finetune}", True),
        ("datasets: [clevr, imagenet]", True),
        ("includes: [base.yaml]", True),
        ("includes: [base.yaml]\nmodel: cnn_lstm", False),
        ("model: cnn_lstm\ndataset: clevr", False),
        ("[]", True),  # MMF needs model= on the command line
    ],
)
def test_recipes(recipe, text, expected):
    recipe("model: flava", "base.yaml")
    recipe(text)
    assert options_are_flava(["config=x.yaml", "optimizer.type=adam"]) is expected


def test_the_command_line_overrides_the_recipe(recipe):
    recipe("model: flava\ndataset: pmd")
    assert not options_are_flava(["config=x.yaml", "model=cnn_lstm", "dataset=clevr"])


def test_a_file_that_cannot_be_read(recipe):
    # MMF cannot run either without model=, so only mmf_flava's message is useful
    recipe("model: flava\na: [", "broken.yaml")
    for name in ("nowhere.yaml", "broken.yaml"):
        assert options_are_flava([f"config={name}"])
        assert not options_are_flava([f"config={name}", "model=cnn_lstm", "dataset=clevr"])


def configuration(*opts: str) -> Configuration:
    return Configuration(argparse.Namespace(opts=list(opts), config_override=None))


def test_each_configuration_decides_anew():
    setup_imports()
    own = configuration("model=flava", "dataset=pmd")
    assert flava_run.is_current()
    other = configuration("model=cnn_lstm", "dataset=clevr")
    assert not flava_run.is_current()
    own.get_config()
    assert flava_run.is_current()
    # as in a process that MMF spawns
    pickle.loads(pickle.dumps(other)).get_config()
    assert not flava_run.is_current()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.argv = ['/bin/mmf_run', 'model=flava']", True),
        ("sys.argv = ['/bin/mmf_run', 'model=cnn_lstm']", False),
        ("import mmf_flava.data.masking", True),
        ("from mmf_flava.compat import behaviour", False),
    ],
)
def test_a_process_without_configuration(code, expected):
    code = f"import sys; {code}; from mmf_flava.compat import flava_run; print(flava_run.is_current())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)]
