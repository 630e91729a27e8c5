"""Names of trainers and callbacks that nobody has registered."""

import pytest
from mmf.utils.build import build_trainer
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat.mmf_api import LINE
from mmf_flava.errors import UserError
from tests.lines import needs_main

OWN, OTHER = ("mmf", "base_trainer") if LINE == "main" else ("base_trainer", "mmf")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flavva", "did you mean flava"),
        (OTHER, f"did you mean {OWN}"),  # of a recipe for MMF's other line
        ("something", "known are "),
    ],
)
def test_a_trainer_that_is_not_registered(name, hint):
    setup_imports()  # MMF's trainers are registered then
    config = OmegaConf.create({"training": {"trainer": name}})
    with pytest.raises(UserError, match=f"no trainer is called '{name}' in this MMF: {hint}"):
        build_trainer(config)


class Counting:
    """Of a callback what is asked here: whether it is made."""

    def __init__(self, config, trainer, start=0):
        self.start = start


@pytest.fixture
def trainer(monkeypatch):
    """MMF's own, of which nothing is built but the user's callbacks."""
    from mmf.common.registry import registry
    from mmf.trainers import mmf_trainer

    for name in ("CheckpointCallback", "EarlyStoppingCallback", "LogisticsCallback", "LRSchedulerCallback"):
        monkeypatch.setattr(mmf_trainer, name, lambda config, trainer: None)
    monkeypatch.setitem(registry.mapping["callback_name_mapping"], "counting_toy", Counting)
    return object.__new__(mmf_trainer.MMFTrainer)


@needs_main
def test_a_callback_needs_no_params(trainer):
    trainer.config = OmegaConf.create({"training": {"callbacks": [{"type": "counting_toy"}]}})
    OmegaConf.set_struct(trainer.config, True)
    trainer.configure_callbacks()
    assert trainer.callbacks[-1].start == 0


@needs_main
def test_a_callback_that_is_not_registered(trainer):
    trainer.config = OmegaConf.create({"training": {"callbacks": [{"type": "counting_toi", "params": {}}]}})
    with pytest.raises(UserError, match=r"training.callbacks\[0\].type: .*'counting_toi'.*counting_toy"):
        trainer.configure_callbacks()


@needs_main
def test_the_lightning_trainer_is_refused_where_its_library_has_moved_on():
    """Without the library there is none, and its name is unknown; an old one takes what MMF gives it."""
    pytest.importorskip("pytorch_lightning", minversion="2.0")
    from mmf.trainers.lightning_trainer import LightningTrainer

    config = OmegaConf.create({"training": {"trainer": "lightning"}, "trainer": {"params": {}}, "evaluation": {}})
    with pytest.raises(UserError, match=r"training\.trainer: lightning .*choose mmf"):
        LightningTrainer(config).load()
