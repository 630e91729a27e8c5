"""Mutated recipes: unknown keys, wrong types and values out of range are refused; valid values are read back.

``make chaos`` checks 3,000 mutations of all recipes.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.config.recipe_keys import keys_of
from tests.config.recipe_mutations import CONFIGS, RECIPES, check, mutate

# one recipe of each trainer and kind of dataset, because loading a recipe takes a second
FEW = [CONFIGS / f"{name}.yaml" for name in ("demo", "finetune/glue/demo_rte", "finetune/demo_vqa2")]


# hypothesis traces every line in its other phases, which multiplies the time of a check
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**32 - 1))
def test_outcome_of_a_mutation_follows_from_the_rules(seed):
    assert list(check(mutate(seed, FEW))) == []


def test_all_runnable_recipes_are_mutated():
    assert len(RECIPES) == 115
    assert {"pretrain/flava", "zero_shot/imagenet", "linear_probe/dtd", "retrieval/coco", "finetune/imagenet"} <= {
        str(path.relative_to(CONFIGS).with_suffix("")) for path in RECIPES
    }


@pytest.mark.parametrize("recipe", FEW, ids=lambda path: path.stem)
def test_keys_of_all_sections_have_rules(recipe):
    keys, sections = keys_of(recipe)
    assert {key.path[0] for key in keys} >= {
        "training", "checkpoint", "evaluation", "env", "distributed", "optimizer", "scheduler", "model_config"
    }  # fmt: skip
    assert len(keys) > 100 and len(sections) > 15
