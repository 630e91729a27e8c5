"""The names that transformers' modules had up to version 3 lead to the modules as they are today."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from tests.lines import needs_main

pytestmark = needs_main


@pytest.mark.parametrize(
    ("name", "place"),
    [("modeling_bert", "bert"), ("tokenization_auto", "auto"), ("configuration_vit", "vit"), ("modeling_clip", "clip")],
)
def test_a_former_name_is_the_present_module(name, place):
    importlib.import_module("mmf.utils.patch").patch_transformers()
    found = importlib.import_module(f"transformers.{name}")
    assert found is importlib.import_module(f"transformers.models.{place}.{name}")
    assert found.__spec__.name == f"transformers.models.{place}.{name}"


def test_what_transformers_has_itself_stays_what_it_is():
    assert importlib.import_module("transformers.modeling_utils").__name__ == "transformers.modeling_utils"
    for name in ("modeling_no_such_model", "models.bert.modeling_no_such_model"):
        assert importlib.util.find_spec(f"transformers.{name}") is None


def test_mmf_no_longer_imports_every_model():
    code = "import sys, mmf; print(*sorted(name for name in sys.modules if name.startswith('transformers.models.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[2] for name in done.stdout.split()}
    # a handful: those of MMF's own models
    assert "bert" in loaded and len(loaded) < 60, sorted(loaded)
