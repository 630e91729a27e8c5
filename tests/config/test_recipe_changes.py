"""Which keys may differ between a checkpoint and the run that resumes from it: the table, its docs, and comparisons."""

import copy
import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.default_values import fill_defaults
from mmf_flava.config.recipe_changes import ABSENT, APPLIED, CHANGES, DATA, FREE, MODEL, OPTIMIZER, Change, find_changes
from mmf_flava.config.recipe_changes import find_recipe_changes as find
from mmf_flava.config.written_values import is_section, store_recipe
from tests.config.recipe_keys import complete, load

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "projects" / "flava" / "configs" / "demo.yaml"


@pytest.fixture(scope="module")
def demo():
    return store_recipe(complete(DEMO), OmegaConf.to_container(load(DEMO), resolve=False))


def changed(recipe, key, value):
    """Return the stored recipe with another value of a key; None removes nothing, it is a value."""
    config = OmegaConf.create(copy.deepcopy(recipe))
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    return OmegaConf.to_container(config, resolve=False)


def leaves(section, key=""):
    for name, value in section.items():
        path = f"{key}.{name}" if key else name
        if is_section(value) and value:
            yield from leaves(value, path)
        else:
            yield path


def test_docs_have_the_table():
    text = (ROOT / "docs" / "resuming.md").read_text()
    table = text.partition("| keys | outcome |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").rpartition(" | ") for line in table.splitlines()]
    assert tuple((tuple(re.findall(r"`([^`]+)`", keys)), outcome) for keys, _, outcome in rows) == CHANGES


def test_every_key_of_the_demo_has_a_row_of_its_own(demo):
    keys = list(leaves(fill_defaults(demo)))
    assert len(keys) > 200
    assert [key for key in keys if Change(key, 0, 1).row == len(CHANGES) - 1] == []


@pytest.mark.parametrize(
    ("key", "value", "outcome"),
    [
        # free
        ("training.num_workers", 4, FREE),
        ("training.device", "cuda:1", FREE),
        ("training.log_interval", 7, FREE),
        ("training.checkpoint_interval", 7, FREE),
        ("training.wandb.enabled", True, FREE),
        ("env.save_dir", "/elsewhere", FREE),
        ("distributed.world_size", 4, FREE),
        ("checkpoint.max_to_keep", 9, FREE),
        ("dataset_config.pmd.data_dir", "/elsewhere", FREE),
        ("dataset_config.pmd.splits.train", ["/elsewhere/a.tar"], FREE),
        ("model_config.flava.text_encoder.pretrained", "weights", FREE),
        ("model_config.flava.codebook.path", "/elsewhere/codebook.safetensors", FREE),
        # applied
        ("optimizer.params.lr", 1e-4, APPLIED),
        ("optimizer.params.amsgrad", True, APPLIED),
        ("scheduler.type", "warmup_linear", APPLIED),
        ("scheduler.params.num_warmup_steps", 7, APPLIED),
        ("training.max_updates", 7, APPLIED),
        ("training.batch_size", 128, APPLIED),
        ("training.precision", "bf16", APPLIED),
        ("training.sharding", "ddp", APPLIED),
        ("training.max_grad_l2_norm", 0.1, APPLIED),
        ("training.clip_norm_mode", "parameter", APPLIED),
        ("training.early_stop.criteria", "losses/flava_mim", APPLIED),
        ("evaluation.zero_shot.templates", ["{}"], APPLIED),
        ("evaluation.zero_shot", None, APPLIED),
        ("dataset_config.pmd.processors.text_processor.params.mask_probability", 0.3, APPLIED),
        ("dataset_config.pmd.splits.val", ["/elsewhere"], APPLIED),
        ("model_config.flava.losses.flava_mim.weight", 3.0, APPLIED),
        ("model_config.flava.text_encoder.dropout", 0.1, APPLIED),
        ("my_own.key", 3, APPLIED),
        # refused
        ("training.seed", 2, DATA),
        ("training.lanes", 16, DATA),
        ("datasets", "imagenet,pmd,ccnews_bookcorpus", DATA),
        ("multitasking.params.sampling_ratios.pmd", 0.5, DATA),
        ("dataset_config.pmd.length_buckets", 4, DATA),
        ("dataset_config.ccnews_bookcorpus.block_size", 99, DATA),
        ("dataset_config.pmd.processors.image_processor.params.mean", [0.5, 0.5, 0.5], FREE),
        ("dataset_config.pmd.processors.image_processor.params.image_size", 48, DATA),
        ("dataset_config.pmd.key_of_another_dataset", 1, DATA),
        ("optimizer.type", "SGD", OPTIMIZER),
        ("model", "my_model", MODEL),
        ("model_config.flava.image_encoder.num_layers", 3, MODEL),
        ("model_config.flava.losses.my_loss", {"type": "my_loss"}, MODEL),
        ("model_config.flava.key_of_another_model", 1, MODEL),
    ],
)
def test_outcome_of_a_changed_key(demo, key, value, outcome):
    changes = [change for change in find(demo, changed(demo, key, value)) if change.outcome != FREE]
    if outcome == FREE:
        assert changes == [] and Change(key, 0, value).outcome == FREE
    else:
        assert [change.outcome for change in changes if key.startswith(change.key)] == [outcome]
        assert all(change.key.startswith(key.partition(".")[0]) for change in changes)


def test_equal_recipes_have_no_changes(demo):
    assert find(demo, json.loads(json.dumps(demo))) == []
    # another notation of the datasets, a default that is written, no seed, another order of the losses
    assert find(demo, changed(demo, "datasets", "pmd, imagenet,ccnews_bookcorpus")) == []
    assert find(demo, changed(demo, "dataset_config.pmd.mismatch_probability", 0.1)) == []
    assert find(changed(demo, "training.seed", None), changed(demo, "training.seed", 0)) == []
    losses = demo["model_config"]["flava"]["losses"]
    reordered = copy.deepcopy(demo)
    reordered["model_config"]["flava"]["losses"] = dict(reversed(losses.items()))
    assert find(demo, reordered) == [] and len(losses) == 6


def recipe(**values):
    return {"model": "m", "datasets": "d", **values}


def stored(resolved, written):
    return json.loads(json.dumps(store_recipe(recipe(**resolved), recipe(**written))))


def test_secrets_are_stored_as_hashes_and_interpolations_as_written():
    written = {"a": "${oc.env:TOKEN}", "b": "https://me:pass@host/x", "c": "${d}", "d": 3, "e": ["${oc.env:TOKEN}"]}
    first = stored({"a": "secret", "b": "https://me:pass@host/x", "c": 3, "d": 3, "e": ["secret"]}, written)
    assert "secret" not in json.dumps(first) and "pass" not in json.dumps(first)
    assert first["a"]["written"] == "${oc.env:TOKEN}" and first["c"] == {"written": "${d}", "value": 3}
    other = stored({"a": "other", "b": "https://me:word@host/x", "c": 4, "d": 4, "e": ["other"]}, written)
    changes = {change.key: str(change) for change in find_changes(first, other)}
    assert changes.keys() == {"a", "b", "c", "d", "e"} and "other" not in str(changes) and "word" not in str(changes)
    assert changes["d"] == "d: 3 -> 4" and changes["c"] == "c: 3 -> 4"
    # the same values, written differently
    plain = {"a": "secret", "b": "https://me:pass@host/x", "c": 3, "d": 3, "e": ["secret"]}
    assert list(find_changes(first, stored(plain, plain))) == []


def test_names_of_datasets_and_models_are_stored_plainly():
    written = {"model": "${oc.env:M}", "datasets": "${oc.env:D}"}
    found = store_recipe({"model": "m", "datasets": "a,b", "model_config": {"m": {"x": 1}, "n": {}}}, written)
    assert found == {"model": "m", "datasets": "a,b", "model_config": {"m": {"x": 1}}}


def test_sections_that_are_added_or_removed_are_one_change():
    assert list(find_changes({"a": None}, {"a": {"b": 1}})) == [Change("a", None, {"b": 1})]
    assert list(find_changes({}, {"a": 1})) == [Change("a", ABSENT, 1)]
    assert str(Change("a.b", ABSENT, True)) == "a.b: not set -> true"
    assert list(find_changes({"a": 1, "b": True}, {"a": 1.0, "b": 1})) == [Change("b", True, 1)]
