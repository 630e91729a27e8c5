"""What MMF asks its global configuration for, while a part of it is tested alone."""

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf


@pytest.fixture
def global_config():
    before = registry.get("config", no_warning=True)
    made = OmegaConf.create({"training": {"batch_size": 2, "max_epochs": None}})
    registry.register("config", made)
    yield made
    registry.register("config", before)
