"""FLAVA's runs import scikit-learn when a metric uses it, and import MMF without the garbage collector."""

import subprocess
import sys

import pytest

from mmf_flava.compat.behaviour.metrics import Postponed


def test_functions_import_the_module_when_they_are_called(monkeypatch):
    monkeypatch.setitem(sys.modules, "colorsys", Postponed("colorsys"))
    from colorsys import hls_to_rgb, rgb_to_hls

    assert "colorsys" not in sys.modules
    assert rgb_to_hls(1, 0, 0) == (0, 0.5, 1)
    assert hls_to_rgb(0, 0.5, 1) == (1, 0, 0)
    assert not isinstance(sys.modules["colorsys"], Postponed)


CODE = """
import gc, sys
import mmf_cli.run, torch
print("sklearn" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 0)
from mmf.modules.metrics import MacroF1
scores, targets = torch.tensor([[0.0, 1], [0, 1], [1, 0]]), torch.tensor([1, 0, 0])
print(round(MacroF1().calculate({"targets": targets}, {"scores": scores}).item(), 3), "sklearn" in sys.modules)
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("['config=projects/flava/configs/demo.yaml']", "False True True\n0.667 True\n"),
        ("['model=cnn_lstm']", "True True False\n0.667 True\n"),
    ],
)
def test_only_runs_of_flava_start_without_scikit_learn_and_garbage_collection(options, expected):
    code = f"import sys\nsys.argv = ['mmf_run', *{options}]\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
