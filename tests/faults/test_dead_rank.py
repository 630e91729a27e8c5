"""``mmf_run`` on two processes, one of which is killed: the other one names it and exits."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mmf_flava.training.peer_watchdog import PEER_DIED
from tests.conftest import DEMO, SCRIPTS, SHORT

OPTIONS = [*SHORT, "training.max_updates=100000", "training.log_interval=1", "training.evaluation_interval=100000"]
OPTIONS += ["training.checkpoint_interval=100000", "training.sharding=ddp"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def start(tmp_path, cache):
    """``start(log, *launcher, **environment)`` starts a run in the background with its output in ``tmp_path / log``."""
    started = []

    def start(log: str, *launcher: str, **environment: str) -> subprocess.Popen:
        command = [*launcher, SCRIPTS / "mmf_run", f"config={DEMO}", *OPTIONS, f"env.save_dir={tmp_path / 'run'}"]
        environment = {**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **environment}
        with open(tmp_path / log, "w") as file:
            started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def wait_for_first_update(folder: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not (folder / "run" / "metrics.jsonl").is_file() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_without_torchrun(start) -> list[subprocess.Popen]:
    """Start two processes as Slurm does, without a launcher that monitors them."""
    port = str(free_port())
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(f"{rank}.log", RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]


@pytest.mark.parametrize("dead", [0, 1])
def test_survivor_exits_without_torchrun(start, tmp_path, dead):
    processes = start_without_torchrun(start)
    wait_for_first_update(tmp_path, processes[1 - dead])
    processes[dead].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    assert processes[1 - dead].wait(timeout=30) == PEER_DIED, (tmp_path / f"{1 - dead}.log").read_text()[-3000:]
    print(f"{time.monotonic() - killed:.2f} s")
    output = (tmp_path / f"{1 - dead}.log").read_text()
    assert f"mmf_flava: rank {dead} on {socket.gethostname()} (process {processes[dead].pid}) exited" in output
    assert "Traceback" not in output


def test_survivor_exits_with_torchrun(start, tmp_path):
    agent = start("run.log", str(SCRIPTS / "torchrun"), "--standalone", "--nproc_per_node=2")
    wait_for_first_update(tmp_path, agent)
    pids = [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
    os.kill(pids[1], signal.SIGKILL)
    assert agent.wait(timeout=30) == 1
    output = (tmp_path / "run.log").read_text()
    assert f"mmf_flava: rank 1 on {socket.gethostname()} (process {pids[1]}) exited" in output, output[-3000:]
    assert not Path(f"/proc/{pids[0]}").exists()
