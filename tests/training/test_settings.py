"""Wishes that contradict each other are refused before anything is built."""

from dataclasses import dataclass

import pytest
from mmf.common.registry import registry
from mmf.utils.configuration import get_default_config_path, load_yaml
from omegaconf import OmegaConf

from mmf_flava.errors import UserError
from mmf_flava.training import settings
from mmf_flava.training.settings import read_settings
from tests.lines import needs_main, needs_rc10

NAMES = ("pmd", "imagenet", "ccnews_bookcorpus")
SHARES = dict(zip(NAMES, (0.70, 0.15, 0.15), strict=True))


def recipe(**wishes):
    config = load_yaml(get_default_config_path())
    ours = {"model": "flava", "datasets": "pmd", "run_type": "train", "optimizer": {"type": "AdamW"}}
    config = OmegaConf.merge(config, ours, {"model_config": {"flava": {"compile": False}}})
    for key, value in wishes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def test_fsdp_with_fp16_and_recomputed_activations_is_allowed():
    wishes = {"training__sharding": "fsdp", "training__precision": "fp16", "training__activation_checkpointing": True}
    settings = read_settings(recipe(**wishes))
    assert (settings.training.sharding, settings.training.precision) == ("fsdp", "fp16")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"optimizer__type": "Adafactor"}, "Adafactor .* fsdp; use AdamW"),
        ({"model_config__flava__compile": True}, r"model_config\.flava\.compile: .* fsdp"),
    ],
)
def test_what_shards_cannot_do_is_refused(wish, words):
    read_settings(recipe(**wish))
    with pytest.raises(UserError, match=words):
        read_settings(recipe(training__sharding="fsdp", **wish))


def multitask(**section):
    """The section of a recipe of three datasets, as it is checked."""
    return read_settings(recipe(datasets=",".join(NAMES), multitasking=section)).multitasking


def test_the_datasets_take_turns_as_the_recipe_says():
    assert multitask(type="ratios", params={"sampling_ratios": SHARES}).params == {"sampling_ratios": SHARES}
    assert multitask(type="round_robin", params={"start_idx": 1}).params == {"start_idx": 1}


def test_another_type_on_the_command_line_leaves_the_params_of_the_recipe_behind():
    section = {"type": "round_robin", "params": {"sampling_ratios": SHARES}}
    assert multitask(**section).params == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"typ": "ratios"}, "'typ' is not a key of multitasking. Did you mean 'type'"),
        ({"type": "ratio"}, r"multitasking\.type: 'ratio' is not one of .*ratios, round_robin"),
        ({"type": "round_robin", "params": {"start_id": 1}}, r"of multitasking\.params\. Did you mean 'start_idx'"),
        ({"type": "round_robin", "params": {"start_idx": "a"}}, r"multitasking\.params\.start_idx: .*Integer"),
        ({"type": "ratios"}, r"multitasking\.params\.sampling_ratios must be given"),
        ({"type": "ratios", "params": {"sampling_ratios": {"pmd": 1}}}, r"must give 'imagenet' a weight above 0"),
        (
            {"type": "ratios", "params": {"sampling_ratios": {**SHARES, "pmd": 0}}},
            r"multitasking\.params\.sampling_ratios must give 'pmd' a weight above 0",
        ),
        (
            {"type": "ratios", "params": {"sampling_ratios": {**SHARES, "imagenett": 1}}},
            "'imagenett' is not a dataset of this run. Did you mean 'imagenet'",
        ),
        ({"type": "ratios", "params": {"sampling_ratios": {"pmd": "much"}}}, "sampling_ratios.pmd: .*Float"),
    ],
)
def test_a_mistake_in_multitasking_is_named(section, words):
    with pytest.raises(UserError, match=words):
        multitask(**section)


def test_one_dataset_alone_needs_no_ratios_of_its_own():
    section = {"type": "ratios", "params": {"sampling_ratios": SHARES}}
    assert read_settings(recipe(datasets="imagenet", multitasking=section)).datasets == ["imagenet"]
    assert not read_settings(
        recipe(datasets="imagenet,vqa2", multitasking={"enabled": False, **section})
    ).multitasking.enabled


@needs_rc10
def test_what_rc10_lacks_is_mains():
    with pytest.raises(UserError, match="is not one of ratios, round_robin; others need MMF's main branch"):
        multitask(type="size_proportional")


@needs_main
def test_params_of_ones_own_strategy_are_checked():
    from mmf.datasets.iteration_strategies import IterationStrategy

    @registry.register_iteration_strategy("alternating_blocks")
    class AlternatingBlocks(IterationStrategy):
        @dataclass
        class Config(IterationStrategy.Config):
            block: int = 2

    assert multitask(type="alternating_blocks", params={"block": 3}).params == {"block": 3}
    with pytest.raises(UserError, match=r"'blok' is not a key of multitasking\.params\. Did you mean 'block'"):
        multitask(type="alternating_blocks", params={"blok": 3})


def test_the_former_key_says_where_it_went():
    with pytest.raises(UserError, match=r"training\.sampling is not a key any more; say multitasking\.type"):
        read_settings(recipe(training__sampling={"type": "round_robin"}))


def test_a_batch_size_of_each_process_is_multiplied(monkeypatch):
    monkeypatch.setattr(settings, "world_size", lambda: 4)
    config = recipe(training__batch_size_per_device=3, training__batch_size=7)
    read_settings(config)
    assert config.training.batch_size == 12
    with pytest.raises(UserError, match=r"training\.batch_size_per_device is 0"):
        read_settings(recipe(training__batch_size_per_device=0))


@needs_main
def test_half_precision_has_another_name_here():
    with pytest.raises(UserError, match=r"say training\.precision: fp16"):
        read_settings(recipe(training__fp16=True))


@pytest.mark.parametrize("updates", [10, None])  # null, as recipes that count epochs have it
def test_epochs_are_refused(updates):
    with pytest.raises(UserError, match=r"training\.max_epochs: .* say training\.max_updates"):
        read_settings(recipe(training__max_epochs=3, training__max_updates=updates))
