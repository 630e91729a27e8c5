"""FLAVA is registered however MMF is started, and a user's own package is found in the working directory."""

import subprocess
import sys

import mmf.utils.env
import pytest

from mmf_flava.compat.behaviour import env
from tests.mmf_versions import needs_rc10


@pytest.fixture
def plugin_module(tmp_path, monkeypatch):
    def write(text: str) -> None:
        (tmp_path / "toy_plugin_of_a_test.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(env, "PLUGIN", "toy_plugin_of_a_test")
    yield write
    sys.modules.pop("toy_plugin_of_a_test", None)


def test_plugin_is_imported_once(plugin_module, tmp_path):
    plugin_module(f"open({str(tmp_path / 'count')!r}, 'a').write('x')")
    mmf.utils.env.setup_imports()
    mmf.utils.env.setup_imports()
    assert (tmp_path / "count").read_text() == "x"


def test_error_in_the_plugin_is_raised(plugin_module):
    plugin_module("import no_such_module_of_a_test")
    with pytest.raises(ImportError, match="no_such_module_of_a_test"):
        mmf.utils.env.setup_imports()


def test_missing_plugin_is_ignored(plugin_module):
    mmf.utils.env.setup_imports()


@pytest.mark.parametrize(
    "first",
    [
        # MMF's main branch registers nothing before setup_imports()
        pytest.param("import mmf.common.registry", marks=needs_rc10),
        "import mmf_flava.models.pretraining",
        "from mmf.utils.env import setup_imports; setup_imports()",
    ],
)
def test_flava_is_registered_after_any_first_import(first):
    code = f"{first}; from mmf.common.registry import registry; print(registry.get_model_class('flava').__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != "NoneType"


def test_user_dir_is_found_in_the_working_directory(tmp_path):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("print('imported')")
    # a script's sys.path has the script's folder first, not the working directory
    code = "import sys; sys.path.remove(''); from mmf.utils.env import import_user_module as i; i('my_package')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"
