"""Every key of MMF's defaults, of both versions, is honoured, has no effect, or is refused with a remedy."""

import copy
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config import mmf_keys
from mmf_flava.config.mmf_keys import check_mmf_keys, leaves, outcome
from mmf_flava.config.recipe_check import check_recipe
from mmf_flava.config.recipes import recipe_path
from mmf_flava.errors import UserError
from tests.config.recipe_keys import load
from tests.mmf_versions import needs_main

# keys that only the defaults of MMF's main branch have
MAIN = {
    "training.colored_logs": True, "training.cudnn_benchmark": False, "training.wandb.enabled": False,
    "training.wandb.entity": None, "training.wandb.project": "mmf", "training.wandb.name": "run",
    "training.wandb.log_checkpoint": False, "training.batch_size_per_device": None, "training.update_frequency": 1,
    "training.persistent_workers": True, "training.detect_anomaly": False, "training.fp16": False,
    "training.callbacks": [], "training.exit_on_nan_losses": True, "trainer.type": "lightning",
    "trainer.params.gpus": 1, "trainer.params.num_nodes": 1, "trainer.params.precision": 32,
    "trainer.params.deterministic": False, "trainer.params.benchmark": False, "trainer.params.max_steps": 22000,
    "trainer.params.max_epochs": None, "trainer.params.gradient_clip_val": 0.0,
    "trainer.params.num_sanity_val_steps": 0, "trainer.params.enable_checkpointing": True,
    "trainer.params.accumulate_grad_batches": 1, "trainer.params.val_check_interval": 1000,
    "trainer.params.log_every_n_steps": 100, "trainer.params.logger": False, "trainer.params.limit_val_batches": 1.0,
    "trainer.params.enable_progress_bar": False, "trainer.params.resume_from_checkpoint": None,
    "evaluation.use_cpu": False, "evaluation.reporter.type": "file", "evaluation.reporter.params": {},
    "optimizer.allow_unused_parameters": False, "optimizer.enable_state_sharding": False, "env.wandb_logdir": "",
    "checkpoint.max_to_keep": -1, "checkpoint.reset.fp16_scaler": False, "multitasking.enabled": True,
    "multitasking.type": "size_proportional", "multitasking.params": {},
}  # fmt: skip
DEFAULTS = dict(leaves(mmf_api.defaults()))
# learning_rate is in no default
ALL = {**MAIN, **DEFAULTS, "training.stdout_capture": True, "optimizer": {}, "learning_rate": None}
OTHER = {True: False, False: True, None: 1, "all": "question", "simple": "json", "lightning": "pytorch"}
REFUSED = [key for key in ALL if outcome(key) == "refused"]


def nested(values):
    config = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return config


def other(value):
    if isinstance(value, list):
        return [1]
    return value + 1 if type(value) in (int, float) else OTHER[value]


@pytest.mark.parametrize("key", ALL)
def test_every_key_of_mmf_has_a_row(key):
    assert outcome(key) is not None


def test_every_row_is_of_a_key():
    assert {*mmf_keys.REFUSED, *mmf_keys.SCHEDULE, *mmf_keys.FREE} <= {*ALL}
    for pattern in mmf_keys.HONOURED:
        assert any(mmf_keys.fnmatchcase(key, pattern) and outcome(key) == "honoured" for key in ALL), pattern


@needs_main
def test_the_keys_of_the_main_branch_are_known():
    assert DEFAULTS.keys() <= ALL.keys() and MAIN.keys() <= DEFAULTS.keys()


def test_the_defaults_of_refused_keys_are_those_of_mmf():
    for key, row in (mmf_keys.REFUSED | mmf_keys.SCHEDULE).items():
        assert row.default == ALL[key], key
    check_mmf_keys(nested({key: ALL[key] for key in REFUSED}), {"trainer": nested(MAIN)["trainer"]})


@pytest.mark.parametrize("key", REFUSED)
def test_another_value_of_a_refused_key_is_an_error_with_a_remedy(key):
    value = other(ALL[key])
    with pytest.raises(UserError) as error:
        check_mmf_keys(nested({key: value}), {"trainer": nested(MAIN)["trainer"]})
    text = str(error.value)
    assert text.startswith(f"{key}: ") and " is not supported by training.trainer: flava. " in text
    assert text.endswith(".") and "\n" not in text


def test_only_the_schedule_of_pythia_has_steps():
    config = nested({"training.lr_steps": [5], "training.lr_scheduler": True})
    check_mmf_keys(config, {})
    check_mmf_keys(config | {"scheduler": {"type": "pythia"}}, {})
    for change in ({"scheduler": {"type": "warmup_linear"}}, nested({"training.lr_steps": [5]})):
        with pytest.raises(
            UserError, match=r"^training.lr_steps: \[5\] is not supported .* Only scheduler.type: pythia"
        ):
            check_mmf_keys(config | change, {})


def test_values_that_are_honoured_besides_the_default():
    for value in ("all", "parameter"):
        check_mmf_keys(nested({"training.clip_norm_mode": value}), {})


def test_the_named_modules_exist():
    package = Path(mmf_keys.__file__).parents[1]
    for where in mmf_keys.HONOURED.values():
        name = where.partition(":")[0].partition(",")[0]
        if not name.startswith("MMF") and not name.startswith("the "):
            assert (package / f"{name.replace('.', '/')}.py").is_file(), name


def test_the_check_of_a_recipe_refuses_the_keys():
    recipe = load(Path(recipe_path("demo")))
    for key in ("training.clip_norm_mode", "training.evaluate_metrics", "trainer.params.max_steps"):
        config = copy.deepcopy(recipe)
        OmegaConf.update(config, key, other(ALL[key]), force_add=True)
        with pytest.raises(UserError, match=rf"^{key}: .* is not supported by training.trainer: flava\."):
            check_recipe(config, OmegaConf.create(mmf_api.defaults()))
