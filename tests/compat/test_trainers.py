"""Unknown trainers and callbacks, and options that MMF's trainers do not support."""

import pytest
from mmf.common.registry import registry
from mmf.utils.build import build_trainer
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat import flava_run
from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.errors import UserError
from tests.mmf_versions import needs_main

INSTALLED, OTHER = ("mmf", "base_trainer") if MMF_VERSION == "main" else ("base_trainer", "mmf")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flavva", "did you mean flava"),
        (OTHER, f"did you mean {INSTALLED}"),  # in a recipe for the other version of MMF
        ("something", "known: "),
    ],
)
def test_unknown_trainer_is_an_error(name, hint, own_run):
    setup_imports()  # registers MMF's trainers
    config = OmegaConf.create({"training": {"trainer": name}})
    with pytest.raises(UserError, match=f"training.trainer: unknown name '{name}' in this version of MMF; {hint}"):
        build_trainer(config)


class Counting:
    """A callback that stores its parameter."""

    def __init__(self, config, trainer, start=0):
        self.start = start


class Flexible:
    """A callback with a variable number of positional arguments."""

    def __init__(self, *args, word="x"):
        self.word = word


@pytest.fixture
def trainer(monkeypatch):
    """MMF's trainer, which builds the user's callbacks only."""
    from mmf.trainers import mmf_trainer

    for name in ("CheckpointCallback", "EarlyStoppingCallback", "LogisticsCallback", "LRSchedulerCallback"):
        monkeypatch.setattr(mmf_trainer, name, lambda config, trainer: None)
    monkeypatch.setitem(registry.mapping["callback_name_mapping"], "counting_toy", Counting)
    monkeypatch.setitem(registry.mapping["callback_name_mapping"], "flexible_toy", Flexible)
    return object.__new__(mmf_trainer.MMFTrainer)


@needs_main
def test_params_of_a_callback_are_optional(trainer, own_run):
    trainer.config = OmegaConf.create({"training": {"callbacks": [{"type": "counting_toy"}]}})
    OmegaConf.set_struct(trainer.config, True)
    trainer.configure_callbacks()
    assert trainer.callbacks[-1].start == 0


@needs_main
@pytest.mark.parametrize("run", ["own_run", "other_run"])
def test_callback_with_variable_arguments_and_extra_keys(trainer, run, request):
    request.getfixturevalue(run)
    entry = {"type": "flexible_toy", "params": {"word": "y"}, "comment": "mine"}
    trainer.config = OmegaConf.create({"training": {"callbacks": [entry]}})
    trainer.configure_callbacks()
    assert trainer.callbacks[-1].word == "y"


@needs_main
def test_callbacks_of_other_runs_are_left_to_mmf(trainer):
    trainer.config = OmegaConf.create({"training": {"callbacks": [{"type": "counting_toi", "params": {}}]}})
    with pytest.raises(TypeError):
        trainer.configure_callbacks()


@needs_main
def test_unknown_callback_is_an_error(trainer, own_run):
    trainer.config = OmegaConf.create({"training": {"callbacks": [{"type": "counting_toi", "params": {}}]}})
    with pytest.raises(UserError, match=r"training.callbacks\[0\].type: .*'counting_toi'.*counting_toy"):
        trainer.configure_callbacks()


@needs_main
def test_lightning_trainer_with_a_recent_library_is_an_error(own_run):
    """Without the library the name is unknown, and with version 1 the trainer works."""
    pytest.importorskip("pytorch_lightning", minversion="2.0")
    from mmf.trainers.lightning_trainer import LightningTrainer

    config = OmegaConf.create({"training": {"trainer": "lightning"}, "trainer": {"params": {}}, "evaluation": {}})
    with pytest.raises(UserError, match=r"training\.trainer: lightning .*Set it to mmf"):
        LightningTrainer(config).load()


def test_precision_with_mmfs_trainer_is_an_error(own_run, monkeypatch):
    """It would train in fp32. In other runs the key has no meaning for mmf_flava."""
    setup_imports()
    built = []
    monkeypatch.setitem(registry.mapping["trainer_name_mapping"], INSTALLED, built.append)
    training = {"trainer": INSTALLED, "precision": "bf16", "device": "cpu"}
    config = OmegaConf.create({"model": "flava_classification", "training": training})
    with pytest.raises(UserError, match=rf"trainer {INSTALLED} does not support training\.precision: bf16"):
        build_trainer(config)
    flava_run.set_current(False)
    build_trainer(config)
    assert built == [config]


def test_unknown_trainer_of_other_runs_is_left_to_mmf():
    with pytest.raises(TypeError):
        build_trainer(OmegaConf.create({"training": {"trainer": "flavva"}}))
