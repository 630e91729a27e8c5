"""The real command, for the tests that run it; a server and an empty cache, for those that download."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.files.loopback import Server

SCRIPTS = Path(sys.executable).parent
DEMO = str(Path(__file__).parents[1] / "projects" / "flava" / "configs" / "demo.yaml")
# a demo that ends in seconds: small batches, few updates
SHORT = ["training.batch_size=16", "training.max_updates=4", "training.num_workers=0", "training.tensorboard=false"]

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """MMF's cache; the demo's data are built in it once, by the first run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def mmf(cache, tmp_path) -> Command:
    """``mmf("mmf_run", "training.max_updates=4", ...)`` runs MMF's own script on the short demo in a new folder.

    ``processes=2`` starts it by torchrun.
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


@pytest.fixture
def server(monkeypatch):
    """A running ``Server``, which is the hub too."""
    server = Server({})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """The folder in which downloads stay, empty."""
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
