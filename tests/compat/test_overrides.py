"""key=value options, and the errors for unknown keys."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.compat.behaviour.command_line import check_sections
from mmf_flava.compat.behaviour.overrides import check_key, merge_options, parse_section_value, read_early_options
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
        ("training.max_updates.x", "training.max_updates is a value and has no key 'x'."),
        (
            "layers[2]",
            "index 2 is out of range: the list 'layers' has 2 entries, counted from 0. Set the whole list with "
            "layers=[...].",
        ),
        (
            "layers[-3]",
            "index -3 is out of range: the list 'layers' has 2 entries, counted from 0. Set the whole list with "
            "layers=[...].",
        ),
        ("layers.0", "layers is a list and has no key '0'. Write layers[0]."),
        ("layers[x]", "the configuration has no key 'layers[x]'; did you mean layers?"),
        ("training[0]", "'training' is not a list. Set the whole list with training=[...]."),
        ("training.batch_size[0]", "'batch_size' is not a list. Set the whole list with training.batch_size=[...]."),
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


def test_sections_are_parsed():
    assert parse_section_value("sizes", "{pmd: 0.7, 'a:b': 1, c: null}", {}) == {"pmd": 0.7, "a:b": 1, "c": None}
    assert parse_section_value("sizes", "None", {}) is None


CONFIG = """
splits: {train: [a.tar, b.tar], val: one.tar, test: null}
losses: [{type: mim, weight: 1.0}, {type: mlm, params: {gradient: local, sizes: [1, 2]}}]
nested: [[1, 2], [3]]
training: {batch_size: 2, lr: 0.1, name: run, half: '${training.batch_size}'}
datasets: pmd
"""


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["splits.train[0]=x.tar"], "splits.train", ["x.tar", "b.tar"]),
        (["splits.train[-1]=x.tar"], "splits.train", ["a.tar", "x.tar"]),
        (["splits.train=[x.tar]"], "splits.train", ["x.tar"]),
        (["splits.train=['x y.tar', z.tar]"], "splits.train", ["x y.tar", "z.tar"]),
        (["splits.train=[]"], "splits.train", []),
        (["splits.test=[x.tar]"], "splits.test", ["x.tar"]),
        (["splits={train: [c.tar]}"], "splits", {"train": ["c.tar"]}),
        (["losses=[{type: flava_itm}]"], "losses", [{"type": "flava_itm"}]),
        (["losses[0]={type: itm}"], "losses[0]", {"type": "itm"}),
        (["losses[0]={type: itm}", "losses[0].type=x"], "losses[0]", {"type": "x"}),
        (["losses[0]=itm"], "losses[0]", "itm"),
        (["losses[1].params.gradient=global"], "losses[1].params.gradient", "global"),
        (["losses[1].params.sizes[0]=7"], "losses[1].params.sizes", [7, 2]),
        (["losses[-2].weight=1e-4"], "losses[0].weight", 1e-4),
        (["nested[0][1]=9"], "nested", [[1, 9], [3]]),
        (["nested[1]=[4, 5]"], "nested", [[1, 2], [4, 5]]),
        (["training.lr=1e-4"], "training.lr", 1e-4),
        (["training.lr=~"], "training.lr", None),
        (["training.name=true"], "training.name", True),
        (["training.name='true'"], "training.name", "true"),
        (["training.name=a=b, c d"], "training.name", "a=b, c d"),
        (["training.lr=1", "training.lr=2"], "training.lr", 2),
        (["training={lr: 3}", "training.lr=4"], "training", {"lr": 4}),
        (["training.lr=5", "training={lr: 3}"], "training", {"lr": 3}),
        (["training.batch_size=8"], "training.half", 8),
        (["training.lr=${training.batch_size}"], "training.lr", 2),
        (["dataset=[a, b]"], "datasets", "a,b"),
        (["training.lr", "a=b"], "training.lr", "a=b"),  # MMF's older form
    ],
)
def test_options_are_set(options, key, value):
    config = OmegaConf.create(CONFIG)
    merge_options(config, options)
    assert OmegaConf.select(config, key) == value


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("splits.val[0]=x.tar", r"'val' is not a list\. Set the whole list with splits\.val=\[\.\.\.\]"),
        ("splits.test[0]=x.tar", r"'test' is not a list\. Set the whole list with splits\.test=\[\.\.\.\]"),
        ("training=mim", r"training is a section\. Set one of its keys, such as training\.batch_size=\.\.\."),
        ("losses[0][1]=x", r"'losses' is not a list"),
        ("splits.train=[a", r"splits\.train=\[a: the value is not valid YAML"),
        ("training.lr=", r"training\.lr= has no value"),
        ("training.lr=${a", r"training\.lr=\$\{a: .* Correct the value"),
        ("training={lr:3}", r"training=\{lr:3\}: 'lr:3' has no value\. YAML requires a space"),
        ("losses[0].wieght=1", r"losses\[0\] has no key 'wieght'; did you mean losses\[0\]\.weight\?"),
    ],
)
def test_options_that_cannot_be_set_are_errors(option, message):
    config = OmegaConf.create(CONFIG)
    with pytest.raises(UserError, match=message):
        merge_options(config, [option])
    assert config == OmegaConf.create(CONFIG)


def test_new_params_of_the_optimizer_are_added():
    config = OmegaConf.create({"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}})
    merge_options(config, ["optimizer.params.eps=1e-6"])
    assert config.optimizer.params == {"lr": 0.1, "eps": 1e-6}
    with pytest.raises(UserError, match="optimizer has no key 'eps'"):
        merge_options(config, ["optimizer.eps=1e-6"])
    with pytest.raises(UserError, match="is a value and has no key"):
        merge_options(config, ["optimizer.params.eps.x=1e-6"])


def test_options_that_are_read_before_the_recipe():
    options = ["config=~/a b.yaml", "datasets=[a, b]", "losses[0]={", "env.user_dir=5", "training.x="]
    expected = {
        "config": "~/a b.yaml",
        "model": None,
        "dataset": None,
        "datasets": ["a", "b"],
        "env": {"user_dir": "5"},
    }
    assert read_early_options(options) == expected
    with pytest.raises(UserError, match=r"dataset=a and datasets=b are both set"):
        read_early_options(["dataset=a", "datasets=b"])


def test_documented_keys_of_a_section_that_the_recipe_lacks_are_set():
    """``evaluation.knn`` is null by default; the recipe has the section, but not all of its keys."""
    config = OmegaConf.create({"training": {"trainer": "flava"}, "evaluation": {"knn": {"dataset": "imagenet"}}})
    merged = merge_options(config, ["evaluation.knn.k=5", "training.precision=bf16"], log=False)
    assert merged.evaluation.knn == {"dataset": "imagenet", "k": 5, "temperature": 0.07}
    with pytest.raises(UserError, match=r"evaluation\.retrieval is a value and has no key 'rerank'"):
        merge_options(config, ["evaluation.retrieval.rerank=5"], log=False)
