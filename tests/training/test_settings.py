"""Invalid and contradictory keys raise an error before anything is built."""

from dataclasses import dataclass

import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.configuration import get_default_config_path, load_yaml
from omegaconf import OmegaConf

from mmf_flava.errors import UserError
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.training import settings
from mmf_flava.training.settings import read_settings
from tests.mmf_versions import needs_main, needs_rc10

NAMES = ("pmd", "imagenet", "ccnews_bookcorpus")
RATIOS = dict(zip(NAMES, (0.70, 0.15, 0.15), strict=True))


def recipe(**options):
    config = load_yaml(get_default_config_path())
    base = {"model": "flava", "datasets": "pmd", "run_type": "train", "optimizer": {"type": "AdamW"}}
    config = OmegaConf.merge(config, base, {"model_config": {"flava": {"compile": False}}})
    for key, value in options.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def test_fsdp_with_fp16_and_recomputed_activations_is_allowed():
    options = {"training__sharding": "fsdp", "training__precision": "fp16", "training__activation_checkpointing": True}
    settings = read_settings(recipe(**options))
    assert (settings.training.sharding, settings.training.precision) == ("fsdp", "fp16")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"optimizer__type": "Adafactor"}, "Adafactor is not supported .* fsdp, .* Set it to one of AdamW"),
        ({"model_config__flava__compile": True}, r"model_config\.flava\.compile is not supported .* fsdp"),
    ],
)
def test_unsupported_options_with_fsdp_raise_user_error(option, words):
    read_settings(recipe(**option))
    with pytest.raises(UserError, match=words):
        read_settings(recipe(training__sharding="fsdp", **option))


def multitask(**section):
    """Return the validated section ``multitasking`` of a recipe with three datasets."""
    return read_settings(recipe(datasets=",".join(NAMES), multitasking=section)).multitasking


def test_params_of_the_selected_type_are_kept():
    assert multitask(type="ratios", params={"sampling_ratios": RATIOS}).params == {"sampling_ratios": RATIOS}
    assert multitask(type="round_robin", params={"start_idx": 1}).params == {"start_idx": 1}


def test_params_of_another_type_are_dropped():
    section = {"type": "round_robin", "params": {"sampling_ratios": RATIOS}}
    assert multitask(**section).params == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"typ": "ratios"}, "'typ' is not a key of multitasking. Did you mean 'type'"),
        ({"type": "ratio"}, r"multitasking\.type: 'ratio' is not one of .*ratios, round_robin"),
        ({"type": "round_robin", "params": {"start_id": 1}}, r"of multitasking\.params\. Did you mean 'start_idx'"),
        ({"type": "round_robin", "params": {"start_idx": "a"}}, r"multitasking\.params\.start_idx: must be an integer"),
        ({"type": "ratios"}, r"multitasking\.params\.sampling_ratios must be given"),
        ({"type": "ratios", "params": {"sampling_ratios": {"pmd": 1}}}, r"the weight of 'imagenet' must be positive"),
        (
            {"type": "ratios", "params": {"sampling_ratios": {**RATIOS, "pmd": 0}}},
            r"multitasking\.params\.sampling_ratios: the weight of 'pmd' must be positive",
        ),
        (
            {"type": "ratios", "params": {"sampling_ratios": {**RATIOS, "imagenett": 1}}},
            "'imagenett' is not a dataset of this run. Did you mean 'imagenet'",
        ),
        ({"type": "ratios", "params": {"sampling_ratios": {"pmd": "much"}}}, "sampling_ratios.pmd: must be a number"),
    ],
)
def test_invalid_multitasking_raises_user_error(section, words):
    with pytest.raises(UserError, match=words):
        multitask(**section)


def test_ratios_of_other_datasets_are_ignored_with_one_dataset():
    section = {"type": "ratios", "params": {"sampling_ratios": RATIOS}}
    assert read_settings(recipe(datasets="imagenet", multitasking=section)).datasets == ["imagenet"]
    assert not read_settings(
        recipe(datasets="imagenet,vqa2", multitasking={"enabled": False, **section})
    ).multitasking.enabled


@needs_rc10
def test_strategies_of_the_main_branch_are_unknown_on_rc10():
    with pytest.raises(
        UserError, match="is not one of ratios, round_robin; other strategies require MMF's main branch"
    ):
        multitask(type="size_proportional")


@needs_main
def test_params_of_a_user_strategy_are_checked():
    from mmf.datasets.iteration_strategies import IterationStrategy

    @registry.register_iteration_strategy("alternating_blocks")
    class AlternatingBlocks(IterationStrategy):
        @dataclass
        class Config(IterationStrategy.Config):
            block: int = 2

    assert multitask(type="alternating_blocks", params={"block": 3}).params == {"block": 3}
    with pytest.raises(UserError, match=r"'blok' is not a key of multitasking\.params\. Did you mean 'block'"):
        multitask(type="alternating_blocks", params={"blok": 3})


def test_removed_key_names_its_replacement():
    with pytest.raises(UserError, match=r"training\.sampling was removed\. Use multitasking\.type"):
        read_settings(recipe(training__sampling={"type": "round_robin"}))


def test_batch_size_per_device_is_multiplied_by_world_size(monkeypatch):
    monkeypatch.setattr(settings, "world_size", lambda: 4)
    config = recipe(training__batch_size_per_device=3, training__batch_size=7)
    read_settings(config)
    assert config.training.batch_size == 12
    with pytest.raises(UserError, match=r"training\.batch_size_per_device: must be at least 1"):
        read_settings(recipe(training__batch_size_per_device=0))


@pytest.mark.parametrize(
    ("training_batch", "given", "expected"), [(8192, None, 256), (64, None, 64), (64, 512, 512), (8192, 16, 16)]
)
@pytest.mark.parametrize("processes", [1, 8])
def test_batch_size_of_evaluations(training_batch, given, expected, processes, monkeypatch):
    monkeypatch.setattr(settings, "world_size", lambda: processes)
    config = recipe(training__batch_size=training_batch, evaluation__batch_size=given)
    evaluation = read_settings(config).evaluation
    suite = EvaluationSuite(evaluation, {"val": {}}, num_workers=0, device=torch.device("cpu"))
    assert evaluation.batch_size == suite.rounds.batch_size == expected
    with pytest.raises(UserError, match=r"evaluation\.batch_size: must be at least 1"):
        read_settings(recipe(evaluation__batch_size=0))


@pytest.mark.parametrize("updates", [10, None])  # null in recipes that use max_epochs
def test_max_epochs_replaces_max_updates(updates):
    read_settings(recipe(training__max_epochs=3, training__max_updates=updates))
    with pytest.raises(UserError, match=r"training\.max_updates or training\.max_epochs must be given"):
        read_settings(recipe(training__max_updates=None))
