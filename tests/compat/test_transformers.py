"""The flat module names of transformers 3 resolve to the current modules."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from tests.mmf_versions import needs_main

pytestmark = [needs_main, pytest.mark.usefixtures("own_run")]


@pytest.mark.parametrize(
    ("name", "place"),
    [("modeling_bert", "bert"), ("tokenization_auto", "auto"), ("configuration_vit", "vit"), ("modeling_clip", "clip")],
)
def test_former_name_is_the_current_module(name, place):
    importlib.import_module("mmf.utils.patch").patch_transformers()
    found = importlib.import_module(f"transformers.{name}")
    assert found is importlib.import_module(f"transformers.models.{place}.{name}")
    assert found.__spec__.name == f"transformers.models.{place}.{name}"


def test_existing_modules_are_not_replaced():
    assert importlib.import_module("transformers.modeling_utils").__name__ == "transformers.modeling_utils"
    for name in ("modeling_no_such_model", "models.bert.modeling_no_such_model"):
        assert importlib.util.find_spec(f"transformers.{name}") is None


@pytest.mark.parametrize(("model", "is_lazy"), [("flava", True), ("cnn_lstm", False)])
def test_only_runs_of_flava_skip_importing_every_model(model, is_lazy):
    code = f"""
import sys
sys.argv = ["mmf_run", "model={model}"]
import mmf
print(*sorted(name for name in sys.modules if name.startswith("transformers.models.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[2] for name in done.stdout.split()}
    # MMF's own models use fewer than 60
    assert "bert" in loaded and (len(loaded) < 60) == is_lazy, sorted(loaded)
