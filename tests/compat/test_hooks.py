"""The import finder: light at start-up, quiet when not wanted, and gone from a module once this is imported."""

import importlib.machinery
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mmf_flava.compat import hooks
from mmf_flava.compat.cure import APPLIED, NOT_NEEDED, Cure

ROOT = str(Path(__file__).parents[2])


def python(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def finders() -> int:
    return sum(hooks.is_ours(finder) for finder in sys.meta_path)


def a_cure(module: str, when: str, mend, needed=lambda module: True) -> Cure:
    return Cure(module, when, "what", "why", "since", "until", mend, needed)  # type: ignore[arg-type]


def imported(name: str, cure: Cure):
    finder = hooks.Finder()
    finder.cures = {name: [cure]}
    spec = finder.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_start_up_loads_three_modules_and_nothing_else():
    # -S: without site-packages' own .pth files, which load what they like
    code = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
before = set(sys.modules)
import mmf_flava.compat.hooks
mmf_flava.compat.hooks.install()
print(*sorted(set(sys.modules) - before))
"""
    assert python("-S", "-c", code) == "mmf_flava mmf_flava.compat mmf_flava.compat.hooks"


def test_installed_at_start_up_and_still_unread():
    code = """
import sys
ours = [finder for finder in sys.meta_path if type(finder).__module__ == 'mmf_flava.compat.hooks']
print(len(ours), sorted(ours[0].unread), 'torch' in sys.modules)
"""
    assert python("-c", code) == "1 ['fairscale', 'fairseq', 'mmf', 'mmf_cli', 'torchvision'] False"


def test_turned_off():
    code = "import sys; print(any(type(f).__module__ == 'mmf_flava.compat.hooks' for f in sys.meta_path))"
    assert python("-c", code, MMF_FLAVA_COMPAT="0") == "False"
    assert python("-c", code) == "True"


def test_install_twice_is_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not hooks.is_ours(finder)])
    monkeypatch.delenv("MMF_FLAVA_COMPAT", raising=False)
    hooks.install()
    hooks.install()
    assert finders() == 1


def test_spawned_child_has_the_finder():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(finders) == 1


def test_a_cure_runs_after_its_module_and_gives_the_loader_back():
    seen = []
    cure = a_cure("colorsys", "after", lambda module: seen.append(module.rgb_to_hsv))
    module = imported("colorsys", cure)
    assert seen == [module.rgb_to_hsv]
    assert type(module.__loader__) is type(module.__spec__.loader) is importlib.machinery.SourceFileLoader
    assert cure.state == APPLIED


def test_a_cure_before_its_module_is_given_none():
    seen = []
    imported("colorsys", a_cure("colorsys", "before", seen.append))
    assert seen == [None]


def test_a_cure_that_is_not_needed_is_left_out():
    cure = a_cure("colorsys", "after", lambda module: pytest.fail("applied"), needed=lambda module: False)
    imported("colorsys", cure)
    assert cure.state == NOT_NEEDED


def test_a_virtual_module_only_where_there_is_no_real_one():
    module = imported("mmf_flava_no_such_module", a_cure("x", "virtual", lambda module: setattr(module, "answer", 42)))
    assert module.answer == 42
    real = a_cure("colorsys", "virtual", lambda module: pytest.fail("a real module was replaced"))
    assert imported("colorsys", real).rgb_to_hsv
    assert real.state == NOT_NEEDED


def test_an_error_in_a_cure_says_whose_it_is():
    def broken(module):
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        imported("colorsys", a_cure("colorsys", "after", broken))
    assert "mmf_flava's cure" in caught.value.__notes__[0] and "colorsys" in caught.value.__notes__[0]


def test_a_cured_module_can_be_inspected_and_pickled_and_has_its_resources():
    import importlib.resources
    import inspect

    import mmf.utils.logger
    from mmf.datasets.multi_dataset_loader import MultiDatasetLoader

    assert "class TensorboardLogger" in inspect.getsource(mmf.utils.logger)
    assert pickle.loads(pickle.dumps(MultiDatasetLoader)) is MultiDatasetLoader
    assert importlib.resources.files("mmf").joinpath("configs/defaults.yaml").is_file()


def test_who_only_looks_a_module_up_sees_the_real_loader():
    finder = hooks.Finder()
    finder.cures = {"colorsys": [a_cure("colorsys", "after", lambda module: None)]}
    assert finder.find_spec("colorsys").loader.get_code("colorsys").co_filename.endswith("colorsys.py")
