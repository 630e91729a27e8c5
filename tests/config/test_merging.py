import pytest
from omegaconf import OmegaConf

from mmf_flava.config.merging import check_containers, clear_replaced
from mmf_flava.errors import UserError


@pytest.mark.parametrize(
    ("base", "given", "cleared"),
    [
        ({"a": {"b": [1], "c": 2}}, {"a": {"b": {"x": 1}}}, {"a": {"b": None, "c": 2}}),
        ({"a": {"b": {"x": 1}}}, {"a": {"b": [1]}}, {"a": {"b": None}}),
        ({"a": {"b": [1]}, "c": "${a.b}"}, {"a": {"b": [2], "d": {}}, "c": [1]}, {"a": {"b": [1]}, "c": "${a.b}"}),
        ({"a": 1}, {"b": [1]}, {"a": 1}),
    ],
)
def test_lists_and_sections_that_replace_each_other_can_be_merged(base, given, cleared):
    base, given = OmegaConf.create(base), OmegaConf.create(given)
    clear_replaced(base, given)
    assert OmegaConf.to_container(base, resolve=False) == cleared
    assert OmegaConf.merge(base, given).a == OmegaConf.merge(cleared, given).a


@pytest.mark.parametrize(
    ("given", "message"),
    [({"a": {"b": [1]}}, r"^a\.b: must be a section .*, got \[1\]\.$"), ({"c": {"d": 1}}, r"^c: must be a list, got")],
)
def test_wrong_containers_raise_an_error(given, message):
    base = OmegaConf.create({"a": {"b": {"x": 1}}, "c": [1]})
    with pytest.raises(UserError, match=message):
        check_containers(base, OmegaConf.create(given))
    check_containers(base, OmegaConf.create({"a": {"b": {"x": [1]}}, "c": [2]}))


def test_other_values_are_ignored():
    clear_replaced(None, OmegaConf.create({"a": 1}))
    clear_replaced(OmegaConf.create([1]), OmegaConf.create({"a": 1}))


@pytest.mark.parametrize(
    ("kind", "params"),
    [("flava_tokens", {"b": 2}), ("vocab", {"a": 1, "b": 2}), ("other", {"a": 1, "b": 2}), (None, {"a": 1, "b": 2})],
)
def test_params_of_another_type_of_processor_are_removed(kind, params):
    def config(**entry):
        return OmegaConf.create({"dataset_config": {"d": {"processors": {"p": entry, "q": None}}}})

    base, given = config(type="vocab", params={"a": 1}), config(params={"b": 2}, **({"type": kind} if kind else {}))
    clear_replaced(base, given)
    assert OmegaConf.merge(base, given).dataset_config.d.processors.p.params == params
