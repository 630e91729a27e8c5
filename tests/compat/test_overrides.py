"""key=value, and what is said about a wrong key; the trees are small enough to read."""

import pytest

from mmf_flava.compat.command_line import check_sections
from mmf_flava.compat.overrides import check_key, section, split
from mmf_flava.config.nearness import near
from mmf_flava.errors import UserError

TREE = {
    "training": {"max_updates": 40, "batch_size": 2},
    "optimizer": {"params": {"lr": 0.1}},
    "layers": [64, {"width": 3}],
    "empty": {},
}


@pytest.mark.parametrize(
    ("opts", "pairs"),
    [
        (["a.b=c=d", "e="], [("a.b", "c=d"), ("e", "")]),
        (["a.b", "c=d", "e", "f"], [("a.b", "c=d"), ("e", "f")]),
        ([], []),
    ],
)
def test_split(opts, pairs):
    assert split(opts) == pairs


@pytest.mark.parametrize("opts", [["x.yaml"], ["model=a", "dataset"], ["a", "b", "c"], ["x.yaml", "model"]])
def test_a_word_without_an_equals_sign(opts):
    with pytest.raises(UserError, match="not of the form key=value"):
        split(opts)


def test_a_yaml_by_itself_is_probably_the_config():
    with pytest.raises(UserError, match=r"did you mean config=x\.yaml\?"):
        split(["x.yaml"])


@pytest.mark.parametrize(
    "key", ["training.max_updates", "optimizer.params", "layers[0]", "layers[1].width", "layers[-1]"]
)
def test_known_keys(key):
    check_key(key, "1", TREE)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("traning.max_updates", "there is no 'traning' in the configuration; did you mean training.max_updates?"),
        ("training.max_update", "there is no 'max_update' in training; did you mean training.max_updates?"),
        ("traning.max_update", "did you mean training.max_updates?"),
        ("max_updates", "there is no 'max_updates' in the configuration; did you mean training.max_updates?"),
        ("optimizer.lr", "did you mean optimizer.params.lr?"),
        ("training.max_updates.x", "training.max_updates is a value, it has no 'x' inside"),
        ("layers[2]", "the list 'layers' has 2 entries"),
        ("training[0]", "'training' is not a list"),
        (
            "training.sampling.type",
            "there is no 'sampling' in training; say multitasking.type and multitasking.params.sampling_ratios",
        ),
        ("empty.x", "there is no 'x' in empty"),
        ("qqq", "there is no 'qqq' in the configuration"),
    ],
)
def test_unknown_keys(key, sentence):
    with pytest.raises(UserError) as caught:
        check_key(key, "7", TREE)
    said = str(caught.value)
    assert said.startswith(f"unknown option {key}=7 on the command line: ") and said.endswith(sentence)


def test_early_check_refuses_near_misses_only():
    known = {"training", "model"}
    check_sections(["training.x=1", "model=a", "my_own.x=2", "layers[0]=1"], known)
    with pytest.raises(UserError, match=r"did you mean training\.max_updates\?"):
        check_sections(["model=a", "traning.max_updates=40"], known)


def test_near_ignores_case():
    assert near("Flava", ["flava", "vilt"]) == ["flava"]


@pytest.mark.parametrize("value", ["{pmd:0.7,imagenet:0.3}", "{a: {b:1}}"])
def test_a_section_without_spaces_after_its_colons(value):
    with pytest.raises(UserError, match=r"^sizes=.* a space after each colon"):
        section("sizes", value, {})


def test_sections():
    assert section("sizes", "{pmd: 0.7, 'a:b': 1, c: null}", {}) == {"pmd": 0.7, "a:b": 1, "c": None}
    assert section("sizes", "None", {}) is None
