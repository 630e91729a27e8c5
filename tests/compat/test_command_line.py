"""A user's mistake ends in one sentence on stderr and exit code 2."""

import argparse
import functools
import subprocess
import sys
from pathlib import Path

import pytest
from mmf.common.registry import registry
from mmf.utils import logger
from mmf.utils.configuration import Configuration, load_yaml
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat.command_line import spoken
from mmf_flava.errors import UserError

SCRIPTS = Path(sys.executable).parent
STOCK = "model: cnn_lstm\ndataset: clevr\n"


@pytest.fixture(scope="module", autouse=True)
def models_and_datasets():
    setup_imports()


@pytest.fixture(autouse=True)
def restored_registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = dict(registry.mapping["state"])
    yield
    registry.mapping["state"].clear()
    registry.mapping["state"].update(state)


def configuration(*opts: str) -> Configuration:
    return Configuration(argparse.Namespace(opts=list(opts), config_override=None))


def write(text: str, name: str = "x.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_misspelt_section_ends_before_mmf_is_imported():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPTS / "mmf_run", "traning.max_updates=40"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(said) == 1 and said[0].startswith("mmf_flava: ") and "did you mean training.max_updates?" in said[0]
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


MISTAKES = {
    ("config=nowhere.yaml",): "there is no config file nowhere.yaml",
    ("model=cnn_lstn", "dataset=clevr"): "did you mean cnn_lstm?",
    ("model=cnn_lstm", "dataset=clever"): "did you mean clevr?",
    ("config=bare.yaml",): "no model is named: write `model: NAME` in bare.yaml",
    ("model=cnn_lstm",): "no dataset is named",
    ("config=x.yaml", "training.max_update=3"): "did you mean training.max_updates?",
}


def test_sentences_of_the_script():
    # one process for all of them: importing MMF takes most of the time
    write(STOCK)
    write("training: {seed: 1}", "bare.yaml")
    code = f"""
import sys
from mmf_cli.run import run
for words in {[*map(list, MISTAKES)]!r}:
    sys.argv[1:] = words
    try:
        run()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["exit code 2"] * len(MISTAKES), done.stderr
    for said, sentence in zip(lines[0::2], MISTAKES.values(), strict=True):
        assert said.startswith("mmf_flava: ") and sentence in said


def test_a_program_gets_the_exception():
    from mmf_cli.run import run

    with pytest.raises(UserError, match="no model is named"):
        run(opts=["dataset=clevr"])


@pytest.mark.parametrize(("error", "code"), [(UserError("oh"), 2), (KeyboardInterrupt(), 130)])
def test_spoken(error, code, capsys):
    with pytest.raises(SystemExit) as end, spoken():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_other_exceptions_and_exits_pass():
    with pytest.raises(ZeroDivisionError), spoken():
        raise ZeroDivisionError
    with pytest.raises(SystemExit) as end, spoken():
        sys.exit(5)
    assert end.value.code == 5


def test_an_error_of_a_dataloader_worker_loses_its_traceback(capsys):
    text = "Caught UserError in DataLoader worker process 0.\nTraceback:\n  File x\nmmf_flava.errors.UserError: bad"
    with pytest.raises(SystemExit), spoken():
        raise UserError(text)
    assert capsys.readouterr().err == "mmf_flava: bad\n"


def test_model_and_dataset_from_the_yaml():
    write("model: cnn_lstm\ndatasets: [clevr, vqa2]\n", "base.yaml")
    config = configuration(f"config={write('includes: [base.yaml]')}").config
    assert (config.model, config.datasets) == ("cnn_lstm", "clevr,vqa2")
    assert "lstm" in config.model_config.cnn_lstm, "the model's defaults were not read"
    assert "vqa2" in config.dataset_config, "the dataset's defaults were not read"


def test_the_command_line_wins():
    config = configuration(f"config={write(STOCK)}", "model=pythia", "dataset=vqa2").config
    assert (config.model, config.datasets) == ("pythia", "vqa2")
    assert "dataset" not in config


def test_values():
    opts = ["env.save_dir=a=b", "checkpoint.resume=true", "training.max_updates=7", "training.max_epochs=null"]
    config = configuration(f"config={write(STOCK)}", *opts).config
    assert config.env.save_dir == "a=b"
    assert config.checkpoint.resume is True
    assert (config.training.max_updates, config.training.max_epochs) == (7, None)


def test_a_section_as_a_whole():
    """MMF walks into the section and forgets the value."""
    opts = ["checkpoint.reset=null", "training.early_stop={enabled: true}"]
    config = configuration(f"config={write(STOCK)}", *opts).config
    assert config.checkpoint.reset is None
    assert config.training.early_stop == {"enabled": True}


def test_options_count_in_their_order():
    opts = ["checkpoint.reset.optimizer=true", "checkpoint.reset=null", "training.early_stop={patience: 3}"]
    config = configuration(f"config={write(STOCK)}", *opts, "training.early_stop.patience=4").config
    assert config.checkpoint.reset is None
    assert config.training.early_stop == {"patience": 4}


def test_a_section_of_the_yaml_alone():
    """It is not in MMF's defaults, which its main branch merges with the command line first."""
    write(STOCK + "own: {a: {b: 1}, c: [1, {d: 2}]}")
    config = configuration("config=x.yaml", "own.a=null", "own.c[1].d=false").config
    assert config.own == {"a": None, "c": [1, {"d": False}]}


@pytest.mark.parametrize(
    ("text", "opts", "rate"),
    [
        ("", ["learning_rate=0.5"], 0.5),
        ("learning_rate: 0.25\noptimizer: {params: {}}", [], 0.25),
        ("optimizer: {params: {lr: 2}}", [], 2),
    ],
)
def test_learning_rate(text, opts, rate):
    text = text or "optimizer: {params: {}}"
    assert configuration(f"config={write(STOCK + text)}", *opts).config.optimizer.params.lr == rate


@pytest.mark.parametrize("value", ["optimizer", "3", "[1]"])
def test_a_section_is_no_value(value):
    with pytest.raises(
        UserError, match=r"checkpoint.reset is a section; give .*checkpoint\.reset\.\w+=\.\.\., or null"
    ):
        configuration(f"config={write(STOCK)}", f"checkpoint.reset={value}")


def test_a_misspelt_section_in_the_yaml():
    with pytest.raises(UserError, match=r"x\.yaml has an unknown section 'traning': did you mean training\?"):
        configuration(f"config={write(STOCK + 'traning: {max_updates: 3}')}")


@pytest.mark.parametrize("own", ["my_section: {a: 1}", "optimizers: {lr: 1}\nlearning_rate: ${optimizers.lr}"])
def test_sections_of_ones_own_are_left_alone(own):
    configuration(f"config={write(STOCK + own)}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1,\nb: }", "x.yaml is not valid YAML: .* line 2"),
        ("includes: [gone.yaml]", "there is no config file .*gone.yaml"),
    ],
)
def test_a_broken_yaml(text, sentence):
    with pytest.raises(UserError, match=sentence):
        configuration(f"config={write(text)}")


def test_a_recipe_is_found_from_any_folder():
    assert load_yaml("projects/flava/configs/demo.yaml")


def test_environment_in_the_yaml(monkeypatch):
    monkeypatch.setenv("MMF_FLAVA_TEST", "12")
    text = "training: {batch_size: '${env:MMF_FLAVA_TEST}', experiment_name: '${env:MMF_FLAVA_UNSET, run}'}"
    config = configuration(f"config={write(STOCK + text)}").config
    assert (config.training.batch_size, config.training.experiment_name) == (12, "run")


def test_resolvers_of_others_stay(monkeypatch, recwarn):
    monkeypatch.setenv("MMF_FLAVA_TEST", "12")
    OmegaConf.register_new_resolver("of_a_test", lambda: "found", replace=True)
    text = "training: {experiment_name: '${of_a_test:}', logger_level: '${oc.env:MMF_FLAVA_TEST}'}"
    config = configuration(f"config={write(STOCK + text)}").get_config()
    assert (config.training.experiment_name, config.training.logger_level) == ("found", "12")
    assert config.env.cache_dir and config.env.log_dir == ""
    OmegaConf.clear_resolver("of_a_test")
    assert not [str(warning.message) for warning in recwarn]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        logger, "get_mmf_env", lambda key: str(tmp_path / "file" / "run") if key == "save_dir" else None
    )
    config = OmegaConf.create({"training": {"log_format": "simple", "logger_level": "info"}})
    registry.register("config", config)
    begin = functools.partial(logger.Logger, config) if hasattr(logger, "Logger") else logger.setup_logger
    with pytest.raises(
        UserError, match=r"env\.save_dir: .*file/run.* cannot be written \(not a directory\): make room"
    ):
        begin()


SPAWNING = """
import sys
import torch.multiprocessing as mp
from mmf_flava.compat.command_line import spoken
from mmf_flava.errors import UserError

def end(_, how):
    if how == "stop":
        sys.exit(75)
    try:
        raise UserError("say training.batch_size=4")
    finally:
        if how == "crash":
            raise ValueError("a defect")

if __name__ == "__main__":
    with spoken():
        mp.spawn(end, sys.argv[1:], nprocs=2)
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [("mistake", 2, ["mmf_flava: say training.batch_size=4"]), ("stop", 75, []), ("crash", 1, "ValueError: a defect")],
)
def test_processes_that_mmf_spawns_end_as_one_would(how, code, said):
    done = subprocess.run([sys.executable, write(SPAWNING, "spawning.py"), how], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    # torch tells which other process it has ended
    lines = [line for line in done.stderr.splitlines() if " Terminating process " not in line]
    assert said in lines if how == "crash" else lines == said
