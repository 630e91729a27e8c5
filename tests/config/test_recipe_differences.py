"""Differences between the recipes of two processes."""

import pytest

from mmf_flava.config.recipe_differences import comparable_values, describe_differences, find_differences


def differences(first: dict, other: dict, written: dict | None = None) -> list[str]:
    """Return the differing keys and the sentence, or an empty list; ``written`` is the recipe with interpolations."""
    a, b = (comparable_values(written or recipe, recipe) for recipe in (first, other))
    keys = find_differences(a, b)
    return [*keys, describe_differences(keys, a, b, "rank 0", "rank 1")] if keys else []


@pytest.mark.parametrize(
    ("first", "other", "key", "values"),
    [
        ({"optimizer": {"params": {"lr": 1e-3}}}, {"optimizer": {"params": {"lr": 0.5}}},
         "optimizer.params.lr", "rank 0 has 0.001, rank 1 has 0.5"),
        ({"training": {"seed": 1}}, {"training": {"seed": None}}, "training.seed", "rank 0 has 1, rank 1 has null"),
        ({"a": {}}, {"a": {"b": 1}}, "a", "rank 0 has {}, rank 1 has no such key"),
        ({"losses": [{"type": "x"}]}, {"losses": [{"type": "y"}]}, "losses[0].type", "rank 0 has x, rank 1 has y"),
        ({"losses": [{"a": 1}]}, {"losses": [{"a": 1}, {"a": 1}]}, "losses[1].a", "rank 0 has no such key"),
        ({"classes": ["a", "b"]}, {"classes": ["b", "a"]}, "classes", 'rank 0 has ["a", "b"], rank 1 has ["b", "a"]'),
        ({"resume": True}, {"resume": 1}, "resume", "rank 0 has true, rank 1 has 1"),
        ({"m": {"pretrained": "/a/v1.pt"}}, {"m": {"pretrained": "/a/v2.pt"}},
         "m.pretrained", "rank 0 has /a/v1.pt, rank 1 has /a/v2.pt"),
        ({"t": "https://me:word@host/x"}, {"t": "https://me:other@host/x"}, "t",
         "rank 0 and rank 1 have different values of https://***@host/x"),
    ],
)  # fmt: skip
def test_differing_key_is_named_with_both_values(first, other, key, values):
    found = differences(first, other)
    assert key in found[:-1]
    if len(found) == 2:
        assert found[-1].startswith(f"{key}: {values}")
    assert "word" not in found[-1]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"distributed": {"rank": 0, "world_size": 2}}, {"distributed": {"rank": 1, "world_size": 2}}),
        ({"env": {"save_dir": "a"}, "config": "a/x.yaml"}, {"env": {"save_dir": "b"}, "config": "x.yaml"}),
        ({"dataset_config": {"pmd": {"data_dir": "/a"}}}, {"dataset_config": {"pmd": {"data_dir": "/b"}}}),
        ({"codebook": {"path": "/scratch/1/dall_e.pt"}}, {"codebook": {"path": "/scratch/2/dall_e.pt"}}),
        ({"training": {"device": "cpu", "logger_level": "info"}}, {"training": {"device": "cpu", "logger_level": 1}}),
        ({"training": {"num_workers": 1, "wandb": {"name": "a"}}}, {"training": {"num_workers": 2, "wandb": {}}}),
        ({"splits": {"train": ["/n0/coco", "b"]}}, {"splits": {"train": ["/n1/coco", "b"]}}),
        ({"lr": 1}, {"lr": 1.0}),
    ],
)
def test_ranks_paths_logs_and_workers_may_differ(first, other):
    assert differences(first, other) == []


def test_values_of_environment_variables_are_compared_and_not_shown():
    key, sentence = differences({"lr": "0.1"}, {"lr": "secret"}, {"lr": "${oc.env:LR}"})
    assert key == "lr"
    assert sentence.startswith("lr: rank 0 and rank 1 have different values of ${oc.env:LR}.")
    assert "secret" not in sentence and "environment variables" in sentence


def test_section_that_is_an_interpolation():
    key, sentence = differences({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 2}]}}, {"a": "${other}"})
    assert key == "a.b[0].c"
    assert "different values of ${other}" in sentence


def test_literal_keys_come_first_and_others_are_listed():
    a = comparable_values({"a": "${b}", "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 1})
    b = comparable_values({"a": "${b}", "b": 2, "c": 2}, {"a": 2, "b": 2, "c": 2})
    keys = find_differences(a, b)
    assert keys == ["b", "c", "a"]
    assert "b: rank 0 has 1, rank 1 has 2. These keys differ too: c, a." in describe_differences(
        keys, a, b, "rank 0", "rank 1"
    )


def test_long_values_are_shortened():
    _, sentence = differences({"a": "x" * 10_000}, {"a": "y" * 10_000})
    assert len(sentence) < 1000
