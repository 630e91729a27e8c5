"""Fixtures: MMF's commands in a subprocess, a local HTTP server and an empty download cache."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmf_flava.compat.hooks import is_patch_finder
from tests.files.loopback import Server

SCRIPTS = Path(sys.executable).parent
DEMO = str(Path(__file__).parents[1] / "projects" / "flava" / "configs" / "demo.yaml")
# the demo with small batches and few updates, which takes seconds
SHORT = ["training.batch_size=16", "training.max_updates=4", "training.num_workers=0", "training.tensorboard=false"]

# keys of MMF's registry
RUN_STATE = ("config", "current_iteration", "current_epoch")
RUN_STATE += ("flava_initial_processors", "flava_quarantine", "flava_random_seed")
# pytest's import hook, which is first, would load mmf.common.test_reporter without the patches, because of its name
sys.meta_path.sort(key=lambda finder: not is_patch_finder(finder))

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """MMF's cache. The first run builds the demo's data in it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def mmf(cache, tmp_path) -> Command:
    """Return ``mmf("mmf_run", "training.max_updates=4", ...)``, which runs a short demo in a new folder.

    ``processes=2`` runs it with torchrun.
    """

    def run(
        script: str, *options: str, config: str = DEMO, cwd: Path = tmp_path, processes: int = 1, **environment: str
    ):
        launcher = [str(SCRIPTS / "torchrun"), "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        command = [*launcher, str(SCRIPTS / script), f"config={config}", *SHORT]
        command += [f"env.save_dir={tmp_path / 'run'}", *options]
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def _run_state() -> dict[str, Any]:
    """Remove the state of a run from MMF's registry and return it."""
    module = sys.modules.get("mmf.common.registry")
    state = module.registry.mapping["state"] if module else {}
    # MMF keeps the first processor built in a process under <dataset>_<processor>
    return {key: state.pop(key) for key in list(state) if key in RUN_STATE or key.endswith("_processor")}


@pytest.fixture(autouse=True, scope="module")
def module_without_earlier_run():
    """Remove the state of runs of other modules, so that no test reads the config of an earlier run."""
    _run_state()
    yield
    _run_state()


@pytest.fixture(autouse=True)
def run_state(module_without_earlier_run):
    """Restore the state of the module's fixtures after each test."""
    before = _run_state()
    if before:
        sys.modules["mmf.common.registry"].registry.mapping["state"].update(before)
    yield
    _run_state()
    if before:
        sys.modules["mmf.common.registry"].registry.mapping["state"].update(before)


@pytest.fixture(autouse=True)
def default_sigterm():
    """Restore the handler of SIGTERM, which commands replace: processes that a test starts would inherit it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def server(monkeypatch):
    """A running ``Server``."""
    server = Server({})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A server that is the Hugging Face Hub for huggingface_hub, with an empty cache ``hub.cache``."""
    from huggingface_hub import constants

    from mmf_flava.files.hub import open_repository

    server.cache = tmp_path / "hub_cache"
    monkeypatch.setenv("HF_ENDPOINT", server.url)  # for other processes
    monkeypatch.setenv("HF_HUB_CACHE", str(server.cache))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(server.cache))
    open_repository.cache_clear()
    yield server
    open_repository.cache_clear()


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """The empty download cache folder."""
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
