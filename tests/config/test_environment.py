"""Environment variables get the type that the check of the config expects."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.environment import decode_variables
from mmf_flava.config.recipe_check import resolve
from mmf_flava.config.schema import check_type
from mmf_flava.errors import UserError

HINTS = {"size": int, "rate": float, "name": str, "flag": bool, "sizes": list[int]}


def decode(values):
    config = OmegaConf.create({"section": values})

    def check():
        resolved = resolve(config)["section"]
        for key, value in resolved.items():
            check_type(HINTS[key], value, f"section.{key}")
        return resolved

    return decode_variables(config, check)


def test_string_of_a_variable_becomes_the_type_of_its_key(monkeypatch):
    monkeypatch.setenv("N", "12")
    monkeypatch.setenv("YES", "true")
    found = decode({
        "size": "${oc.env:N}", "rate": "${oc.env:NONE, 1e-3}", "name": "${oc.env:N}", "flag": "${oc.env:YES}",
        "sizes": ["${oc.env:N}", 3],
    })  # fmt: skip
    assert found == {"size": 12, "rate": 0.001, "name": "12", "flag": True, "sizes": [12, 3]}


def test_number_of_a_variable_becomes_the_text_of_the_variable(monkeypatch):
    monkeypatch.setenv("N", "007")
    OmegaConf.register_new_resolver("env", lambda name: 7, replace=True)
    assert decode({"name": "${env:N}"}) == {"name": "007"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "3"}, r"^section\.size: must be an integer, got '3'\. Write it without quotes\.$"),
        ({"size": "${oc.env:WORD}"}, r"^section\.size: must be an integer, got 'word'\.$"),
        ({"size": "${oc.env:FRACTION}"}, r"^section\.size: must be an integer, got 2\.5\.$"),
        ({"size": "n${oc.env:N}"}, r"^section\.size: must be an integer, got 'n12'\.$"),
    ],
)
def test_other_strings_are_refused(monkeypatch, values, message):
    for name, value in {"WORD": "word", "FRACTION": "2.5", "N": "12"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        decode(values)
