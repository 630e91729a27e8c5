"""Every recipe opens with what it is, loads with MMF's own loader, and fits the schema."""

from pathlib import Path

import pytest
from mmf.utils.configuration import load_yaml
from omegaconf import OmegaConf

from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.schema import parse

CONFIGS = Path(__file__).parents[1] / "projects" / "flava" / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_recipe_opens_with_a_comment_and_loads(path):
    assert path.read_text().startswith("# ")
    config = load_yaml(str(path))
    if "model_config" in config:
        section = OmegaConf.merge(
            load_yaml(str(CONFIGS / "defaults.yaml")).model_config.flava, config.model_config.flava
        )
        section.codebook.path = None  # holds ${env.data_dir}, which MMF's defaults define
        parse(FlavaConfig, section, "model_config.flava")


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.parent == CONFIGS and p.name != "defaults.yaml"], ids=lambda p: p.name
)
def test_recipe_names_its_command(path):
    assert f"mmf_run config=projects/flava/configs/{path.name}" in path.read_text()
