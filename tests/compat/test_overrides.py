"""key=value options, and the errors for unknown keys."""

import pytest

from mmf_flava.compat.behaviour.command_line import check_sections
from mmf_flava.compat.behaviour.overrides import check_key, parse_section_value
from mmf_flava.compat.command_line import split_options
from mmf_flava.config.close_matches import close_matches
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
def test_options_are_split(opts, pairs):
    assert split_options(opts) == pairs


@pytest.mark.parametrize("opts", [["x.yaml"], ["model=a", "dataset"], ["a", "b", "c"], ["x.yaml", "model"]])
def test_word_without_an_equals_sign_is_an_error(opts):
    with pytest.raises(UserError, match="expected key=value"):
        split_options(opts)


def test_yaml_file_without_key_suggests_config():
    with pytest.raises(UserError, match=r"Did you mean config=x\.yaml\?"):
        split_options(["x.yaml"])


@pytest.mark.parametrize(
    "key", ["training.max_updates", "optimizer.params", "layers[0]", "layers[1].width", "layers[-1]"]
)
def test_known_keys_are_accepted(key):
    check_key(key, "1", TREE)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("traning.max_updates", "the configuration has no key 'traning'; did you mean training.max_updates?"),
        ("training.max_update", "training has no key 'max_update'; did you mean training.max_updates?"),
        ("traning.max_update", "did you mean training.max_updates?"),
        ("max_updates", "the configuration has no key 'max_updates'; did you mean training.max_updates?"),
        ("optimizer.lr", "did you mean optimizer.params.lr?"),
        ("training.max_updates.x", "training.max_updates is a value and has no key 'x'"),
        ("layers[2]", "the list 'layers' has 2 entries"),
        ("training[0]", "'training' is not a list"),
        (
            "training.sampling.type",
            "training has no key 'sampling'; use multitasking.type and multitasking.params.sampling_ratios",
        ),
        ("empty.x", "empty has no key 'x'"),
        ("qqq", "the configuration has no key 'qqq'"),
    ],
)
def test_unknown_keys_are_errors(key, message):
    with pytest.raises(UserError) as caught:
        check_key(key, "7", TREE)
    text = str(caught.value)
    assert text.startswith(f"Unknown option {key}=7: ") and text.endswith(message)


def test_early_check_rejects_close_matches_only():
    known = {"training", "model"}
    check_sections(["training.x=1", "model=a", "my_own.x=2", "layers[0]=1"], known)
    with pytest.raises(UserError, match=r"did you mean training\.max_updates\?"):
        check_sections(["model=a", "traning.max_updates=40"], known)


def test_close_matches_ignore_case():
    assert close_matches("Flava", ["flava", "vilt"]) == ["flava"]


@pytest.mark.parametrize("value", ["{pmd:0.7,imagenet:0.3}", "{a: {b:1}}"])
def test_section_without_spaces_after_its_colons_is_an_error(value):
    with pytest.raises(UserError, match=r"^sizes=.* a space after each colon"):
        parse_section_value("sizes", value, {})


def test_sections_are_parsed():
    assert parse_section_value("sizes", "{pmd: 0.7, 'a:b': 1, c: null}", {}) == {"pmd": 0.7, "a:b": 1, "c": None}
    assert parse_section_value("sizes", "None", {}) is None
