"""Invalid input of a run of FLAVA: one line on stderr and exit code 2. Other runs get MMF's own errors."""

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

from mmf_flava.command import report_user_errors
from mmf_flava.errors import UserError

SCRIPTS = Path(sys.executable).parent
# the trainer makes it a run of FLAVA; the model and the dataset are small
OWN = "model: cnn_lstm\ndataset: clevr\ntraining: {trainer: flava}\noptimizer: {type: AdamW}\n"
SECTIONS = "own: {a: {optimizer: false}, b: {enabled: false, patience: 1}}"
OTHER = ("model=cnn_lstm", "dataset=clevr")


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


def write_own(text: str = "") -> str:
    """Write a recipe of FLAVA with these additions."""
    return write(f"includes: [{write(OWN, 'own.yaml')}]\n{text}")


def test_misspelt_section_is_reported_before_mmf_is_imported():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPTS / "mmf_run", "model=flava", "traning.max_updates=40"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(messages) == 1 and messages[0].startswith("mmf_flava: ")
    assert "did you mean training.max_updates?" in messages[0]
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


INVALID = {
    ("config=nowhere.yaml",): "Config file nowhere.yaml was not found",
    ("model=flavva", "dataset=pmd"): "did you mean flava or flava_dino?",
    ("model=cnn_lstm", "dataset=clever", "training.trainer=flava"): "did you mean clevr?",
    ("config=bare.yaml",): "model is not set. Add `model: NAME` in bare.yaml",
    ("model=flava",): "dataset is not set.",
    ("config=x.yaml", "training.max_update=3"): "did you mean training.max_updates?",
}


def run_scripts(*command_lines: list[str]) -> list[str]:
    """Run MMF's run() with each of the command lines in one process, and return the lines of stderr."""
    code = f"""
import sys
from mmf_cli.run import run
for words in {command_lines!r}:
    sys.argv[1:] = words
    try:
        run()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
    except BaseException as error:
        print("raised", type(error).__name__, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_invalid_input_prints_one_line():
    write(OWN)
    write("training: {seed: 1, trainer: flava}", "bare.yaml")
    lines = run_scripts(*map(list, INVALID))
    assert lines[1::2] == ["exit code 2"] * len(INVALID), lines
    for line, message in zip(lines[0::2], INVALID.values(), strict=True):
        assert line.startswith("mmf_flava: ") and message in line


def test_other_runs_get_mmfs_errors_without_prefix():
    write("own: {a: 1}", "other.yaml")
    lines = run_scripts(
        [*OTHER, "config=nowhere.yaml"],
        ["model=cnn_lstm"],
        ["config=other.yaml"],
        [*OTHER, "training.max_update=3"],
        [*OTHER, "traning.max_updates=3"],
    )
    assert [line for line in lines if line.startswith("raised")] == [
        "raised FileNotFoundError",
        "raised KeyError",
        "raised KeyError",
        "raised AttributeError",
        "raised AttributeError",
    ]
    assert not [line for line in lines if "mmf_flava: " in line]


def test_programs_get_the_exception():
    from mmf_cli.run import run

    with pytest.raises(UserError, match="model is not set"):
        run(opts=["dataset=pmd"])


@pytest.mark.parametrize(("error", "code"), [(UserError("oh"), 2), (KeyboardInterrupt(), 130)])
def test_user_errors_and_interrupts_print_one_line(error, code, capsys):
    with pytest.raises(SystemExit) as end, report_user_errors():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_other_exceptions_are_raised():
    with pytest.raises(ZeroDivisionError), report_user_errors():
        raise ZeroDivisionError
    with pytest.raises(SystemExit) as end, report_user_errors():
        sys.exit(5)
    assert end.value.code == 5


def test_error_of_a_dataloader_worker_is_printed_without_traceback(capsys):
    text = "Caught UserError in DataLoader worker process 0.\nTraceback:\n  File x\nmmf_flava.errors.UserError: bad"
    with pytest.raises(SystemExit), report_user_errors():
        raise UserError(text)
    assert capsys.readouterr().err == "mmf_flava: bad\n"


def test_model_and_dataset_are_read_from_the_recipe():
    write(
        "model: cnn_lstm\ndatasets: [clevr, vqa2]\ntraining: {trainer: flava}\noptimizer: {type: AdamW}\n", "base.yaml"
    )
    config = configuration(f"config={write('includes: [base.yaml]')}").config
    assert (config.model, config.datasets) == ("cnn_lstm", "clevr,vqa2")
    assert "lstm" in config.model_config.cnn_lstm, "the model's defaults are missing"
    assert "vqa2" in config.dataset_config, "the dataset's defaults are missing"


def test_command_line_overrides_the_recipe():
    config = configuration(f"config={write_own()}", "model=pythia", "dataset=vqa2").config
    assert (config.model, config.datasets) == ("pythia", "vqa2")
    assert "dataset" not in config


def test_values_are_converted():
    opts = ["env.save_dir=a=b", "checkpoint.resume=true", "training.max_updates=7", "training.max_epochs=null"]
    config = configuration(f"config={write_own()}", *opts).config
    assert config.env.save_dir == "a=b"
    assert config.checkpoint.resume is True
    assert (config.training.max_updates, config.training.max_epochs) == (7, None)


def test_complete_sections_can_be_set():
    """MMF ignores the value of a section."""
    config = configuration(f"config={write_own(SECTIONS)}", "own.a=null", "own.b={enabled: true}").config
    assert config.own == {"a": None, "b": {"enabled": True}}


def test_options_are_applied_in_order():
    opts = ["own.a.optimizer=true", "own.a=null", "own.b={patience: 3}", "own.b.patience=4"]
    config = configuration(f"config={write_own(SECTIONS)}", *opts).config
    assert config.own == {"a": None, "b": {"patience": 4}}


def test_options_of_a_section_that_only_the_recipe_has():
    """MMF's main branch merges the command line with its defaults first."""
    write_own("own: {a: {b: 1}, c: [1, {d: 2}]}")
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
def test_learning_rate_is_set_from_either_key(text, opts, rate):
    text = text or "optimizer: {params: {}}"
    assert configuration(f"config={write_own(text)}", *opts).config.optimizer.params.lr == rate


@pytest.mark.parametrize("value", ["optimizer", "3", "[1]"])
def test_value_for_a_section_is_an_error(value):
    with pytest.raises(
        UserError, match=r"checkpoint.reset is a section\. Set .*checkpoint\.reset\.\w+=\.\.\., or set it to null"
    ):
        configuration(f"config={write_own()}", f"checkpoint.reset={value}")


def test_misspelt_section_of_the_recipe_is_an_error():
    with pytest.raises(UserError, match=r"x\.yaml: unknown section 'traning'; did you mean training\?"):
        configuration(f"config={write_own('traning: {max_updates: 3}')}")


def test_dotted_key_of_the_recipe_is_an_error():
    with pytest.raises(UserError, match=r"x\.yaml: training\.max_updates is not a key\. .* `training: {max_updates: "):
        configuration(f"config={write_own('training.max_updates: 3')}")


@pytest.mark.parametrize("own", ["my_section: {a: 1}", "optimizers: {lr: 1}\nlearning_rate: ${optimizers.lr}"])
def test_sections_with_other_names_are_accepted(own):
    configuration(f"config={write_own(own)}")


@pytest.mark.parametrize("section", ["optimizer_d", "train", "models", "evaluator", "traning"])
def test_other_runs_accept_any_section(section):
    config = configuration(f"config={write(f'{section}: {{lr: 1}}')}", *OTHER, f"{section}.lr=2").config
    assert config[section] == {"lr": 2}


def test_other_runs_are_merged_by_mmf():
    """MMF takes true for a string, and its defaults have no training.max_grad_l2_norm."""
    config = configuration(*OTHER, "checkpoint.resume=true").config
    assert config.checkpoint.resume == "true" and "max_grad_l2_norm" not in config.training
    clipped = configuration(f"config={write('training: {clip_gradients: true}')}", *OTHER).config
    assert clipped.training.max_grad_l2_norm is None  # MMF reads the key in this case


@pytest.mark.parametrize("own", [True, False])
def test_configuration_before_setup_imports_warns(own):
    """In notebooks and tests; nothing is registered yet."""
    words = ["model=flava", "dataset=pmd"] if own else list(OTHER)
    code = f"""
import argparse
from mmf.utils.configuration import Configuration
from mmf.common.registry import registry
registry.mapping["builder_name_mapping"].clear()
registry.mapping["model_name_mapping"].clear()
registry.unregister("imports_setup")
config = Configuration(argparse.Namespace(opts={words!r}, config_override=None)).config
print(config.model, config.datasets)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == " ".join(word.partition("=")[2] for word in words)
    assert "has been registered" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: }", r"x\.yaml, line 6: the text is not valid YAML"),
        ("includes: [gone.yaml]", "Config file .*gone.yaml was not found"),
    ],
)
def test_invalid_recipe_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        configuration(f"config={write(OWN + text)}")


def test_recipe_is_found_from_any_folder(own_run):
    assert load_yaml("projects/flava/configs/demo.yaml")


def test_environment_variables_in_recipes(monkeypatch):
    monkeypatch.setenv("MMF_FLAVA_TEST", "12")
    text = "training: {batch_size: '${env:MMF_FLAVA_TEST}', experiment_name: '${env:MMF_FLAVA_UNSET, run}'}"
    config = configuration(f"config={write_own(text)}").config
    assert (config.training.batch_size, config.training.experiment_name) == (12, "run")


def test_resolvers_of_other_packages_are_kept(monkeypatch, recwarn):
    monkeypatch.setenv("MMF_FLAVA_TEST", "12")
    OmegaConf.register_new_resolver("test_resolver", lambda: "found", replace=True)
    text = "training: {experiment_name: '${test_resolver:}'}\ncheckpoint: {resume_file: '${oc.env:MMF_FLAVA_TEST}'}"
    config = configuration(f"config={write_own(text)}").get_config()
    assert (config.training.experiment_name, config.checkpoint.resume_file) == ("found", "12")
    assert config.env.cache_dir and config.env.log_dir == ""
    OmegaConf.clear_resolver("test_resolver")
    assert not [str(warning.message) for warning in recwarn]


def test_unwritable_folder_is_an_error(own_run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        logger, "get_mmf_env", lambda key: str(tmp_path / "file" / "run") if key == "save_dir" else None
    )
    config = OmegaConf.create({"training": {"log_format": "simple", "logger_level": "info"}})
    registry.register("config", config)
    start = functools.partial(logger.Logger, config) if hasattr(logger, "Logger") else logger.setup_logger
    with pytest.raises(
        UserError, match=r"env\.save_dir: .*file/run.* cannot be written \(not a directory\)\. Free disk space"
    ):
        start()


SPAWNING = """
import sys
import torch.multiprocessing as mp
from mmf_flava.command import report_user_errors
from mmf_flava.errors import UserError

def end(_, how):
    if how == "stop":
        sys.exit(75)
    try:
        raise UserError("set training.batch_size=4")
    finally:
        if how == "crash":
            raise ValueError("a defect")

if __name__ == "__main__":
    with report_user_errors():
        mp.spawn(end, sys.argv[1:], nprocs=2)
"""


@pytest.mark.parametrize(
    ("how", "code", "messages"),
    [("mistake", 2, ["mmf_flava: set training.batch_size=4"]), ("stop", 75, []), ("crash", 1, "ValueError: a defect")],
)
def test_spawned_processes_report_errors_like_a_single_one(how, code, messages):
    done = subprocess.run([sys.executable, write(SPAWNING, "spawning.py"), how], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    # torch prints which other process it has terminated
    lines = [line for line in done.stderr.splitlines() if " Terminating process " not in line]
    assert messages in lines if how == "crash" else lines == messages
