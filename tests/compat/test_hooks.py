"""The import finder: cheap at start-up, absent when disabled, and removed from a module once it is imported."""

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
from mmf_flava.compat import patch as patch_module
from mmf_flava.compat.patch import APPLIED, NOT_NEEDED, Patch

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def applied_patches(monkeypatch):
    """Keep the patches of these tests out of the process's list."""
    monkeypatch.setattr(patch_module, "APPLIED_PATCHES", [])


def python(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def finders() -> int:
    return sum(hooks.is_patch_finder(finder) for finder in sys.meta_path)


def make_patch(module: str, when: str, change, needed=lambda module: True) -> Patch:
    return Patch(module, when, "what", "why", "since", "until", change, needed)  # type: ignore[arg-type]


def import_with(name: str, patch: Patch):
    finder = hooks.Finder()
    finder.patches = {name: [patch]}
    spec = finder.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_start_up_loads_three_modules_and_nothing_else():
    # -S: without the .pth files in site-packages, which may import anything
    code = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
before = set(sys.modules)
import mmf_flava.compat.hooks
mmf_flava.compat.hooks.install()
print(*sorted(set(sys.modules) - before))
"""
    assert python("-S", "-c", code) == "mmf_flava mmf_flava.compat mmf_flava.compat.hooks"


def test_finder_is_installed_at_start_up_without_its_patches():
    code = """
import sys
ours = [finder for finder in sys.meta_path if type(finder).__module__ == 'mmf_flava.compat.hooks']
print(len(ours), ours[0].patches, 'torch' in sys.modules)
"""
    assert python("-c", code) == "1 None False"


def test_finder_is_absent_when_turned_off():
    code = "import sys; print(any(type(f).__module__ == 'mmf_flava.compat.hooks' for f in sys.meta_path))"
    assert python("-c", code, MMF_FLAVA_COMPAT="0") == "False"
    assert python("-c", code) == "True"


def test_second_install_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not hooks.is_patch_finder(finder)])
    monkeypatch.delenv("MMF_FLAVA_COMPAT", raising=False)
    hooks.install()
    hooks.install()
    assert finders() == 1


def test_spawned_child_has_the_finder():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(finders) == 1


def test_patch_runs_after_its_module_and_the_loader_is_restored():
    seen = []
    patch = make_patch("colorsys", "after", lambda module: seen.append(module.rgb_to_hsv))
    module = import_with("colorsys", patch)
    assert seen == [module.rgb_to_hsv]
    assert type(module.__loader__) is type(module.__spec__.loader) is importlib.machinery.SourceFileLoader
    assert patch.state == APPLIED


def test_patch_before_its_module_receives_none():
    seen = []
    import_with("colorsys", make_patch("colorsys", "before", seen.append))
    assert seen == [None]


def test_unneeded_patch_is_skipped():
    patch = make_patch("colorsys", "after", lambda module: pytest.fail("applied"), needed=lambda module: False)
    import_with("colorsys", patch)
    assert patch.state == NOT_NEEDED


def test_virtual_module_does_not_replace_a_real_one():
    module = import_with(
        "mmf_flava_no_such_module", make_patch("x", "virtual", lambda module: setattr(module, "answer", 42))
    )
    assert module.answer == 42
    real = make_patch("colorsys", "virtual", lambda module: pytest.fail("the real module was replaced"))
    assert import_with("colorsys", real).rgb_to_hsv
    assert real.state == NOT_NEEDED


def test_exception_of_a_patch_has_a_note():
    def broken(module):
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        import_with("colorsys", make_patch("colorsys", "after", broken))
    assert "mmf_flava's patch" in caught.value.__notes__[0] and "colorsys" in caught.value.__notes__[0]


def test_patched_module_can_be_inspected_and_pickled_and_has_its_resources():
    import importlib.resources
    import inspect

    import mmf.utils.logger
    from mmf.datasets.multi_dataset_loader import MultiDatasetLoader

    assert "class TensorboardLogger" in inspect.getsource(mmf.utils.logger)
    assert pickle.loads(pickle.dumps(MultiDatasetLoader)) is MultiDatasetLoader
    assert importlib.resources.files("mmf").joinpath("configs/defaults.yaml").is_file()


def test_module_lookup_without_import_sees_the_real_loader():
    finder = hooks.Finder()
    finder.patches = {"colorsys": [make_patch("colorsys", "after", lambda module: None)]}
    assert finder.find_spec("colorsys").loader.get_code("colorsys").co_filename.endswith("colorsys.py")


def test_patches_are_loaded_with_the_first_watched_package_only():
    code = "import json, sys; print(*sorted(name for name in sys.modules if name.startswith('mmf_flava.compat.')))"
    assert python("-c", code) == "mmf_flava.compat.hooks"
    code = "import torchvision, sys; print('mmf_flava.compat.imports' in sys.modules, 'mmf' in sys.modules)"
    assert python("-c", code) == "True False"
