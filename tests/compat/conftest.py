"""MMF's global configuration, and the kind of run, for tests of single functions."""

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.compat import flava_run


@pytest.fixture
def global_config():
    before = registry.get("config", no_warning=True)
    config = OmegaConf.create({"training": {"batch_size": 2, "max_epochs": None}})
    registry.register("config", config)
    yield config
    registry.register("config", before)


@pytest.fixture(autouse=True)
def other_run(monkeypatch):
    """Each test starts in a run that is not FLAVA's, and ends with the kind of run that it found."""
    monkeypatch.setattr(flava_run, "_current", False)


@pytest.fixture
def own_run(other_run):
    """A run of FLAVA."""
    flava_run.set_current(True)
