"""Recipes of processes that meet in a store; threads stand for processes."""

import copy
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

import mmf_flava
from mmf_flava.compat import process_recipes
from mmf_flava.compat.early_config import build, resolvers
from mmf_flava.compat.process_recipes import Meeting, compare_recipes, join, report_failure
from mmf_flava.compat.source_names import read_names_of
from mmf_flava.errors import UserError
from tests.conftest import DEMO, SCRIPTS, SHORT
from tests.faults.unlike_recipes import PAIRS


@pytest.fixture(autouse=True)
def no_meeting(monkeypatch):
    monkeypatch.setattr(process_recipes, "_current", None)


@pytest.fixture(scope="module")
def config():
    """``config(*options)`` returns the complete config of the demo with these options."""
    import mmf

    folder = Path(mmf.__file__).parent
    names = read_names_of(folder, Path(mmf_flava.__file__).parent)

    with resolvers():
        complete = build([f"config={DEMO}", *SHORT], folder, names).values

    def copy_config(*options: str):
        copied = copy.deepcopy(complete)
        copied.merge_with_dotlist(list(options))
        return copied

    return copy_config


def results(*functions) -> list[str]:
    """Call the functions in a thread each. Return the message of the UserError of each, or an empty text."""

    def call(function) -> str:
        try:
            function()
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(functions)) as threads:
        return list(threads.map(call, functions))


def meetings(size: int = 2, timeout: float = 30.0, farewell: float = 5.0) -> list[Meeting]:
    store = dist.HashStore()
    return [Meeting(store, rank, size, timeout, farewell) for rank in range(size)]


def compare(folder: Path, *configs) -> list[str]:
    folder.mkdir(exist_ok=True)
    for rank, config in enumerate(configs):
        group = {"init_method": f"file://{folder}/group", "rank": rank, "world_size": len(configs)}
        config.distributed.update(group)

    def run(config) -> None:
        with resolvers():
            compare_recipes(config)

    process_recipes._meetings = iter([0] * len(configs))  # each process counts its own meetings
    return results(*(lambda config=config: run(config) for config in configs))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.key)
def test_unlike_recipes_end_on_all_processes_with_the_key_and_both_values(config, tmp_path, pair):
    first, other = compare(tmp_path, config(*pair.first), config(*pair.other))
    assert first == other
    assert first.startswith(f"{pair.key}: rank 0 on ") and f"(process {os.getpid()}) has {pair.values[1]}." in first
    assert f") has {pair.values[0]}, rank 1 on " in first


def test_equal_recipes_with_paths_and_ranks_of_their_own_agree(config, tmp_path):
    configs = [config(f"env.save_dir={tmp_path}/{n}", f"training.num_workers={n}") for n in range(3)]
    assert compare(tmp_path, *configs) == ["", "", ""]


def test_unlike_devices_and_versions(config, tmp_path, monkeypatch):
    kinds = iter([True, False])
    monkeypatch.setattr(process_recipes, "uses_cuda", lambda config: next(kinds))
    assert "training.device: rank 0 on " in compare(tmp_path, config(), config())[1]
    versions = iter("12345678" * 4)
    monkeypatch.setattr(process_recipes, "uses_cuda", lambda config: False)
    monkeypatch.setattr(process_recipes, "_version", lambda name: next(versions) if name == "torch" else "1")
    first, other = compare(tmp_path / "x", config(), config())
    assert first == other and first.startswith("torch: rank 0 on ") and "Install the same version" in first
    monkeypatch.setattr(process_recipes, "_version", lambda name: next(versions) if name == "numpy" else "1")
    assert compare(tmp_path / "y", config(), config()) == ["", ""]


def test_failure_of_a_process_ends_the_others():
    for failing in range(3):
        started = meetings(3)

        def start(meeting, failing=failing):
            if meeting.rank == failing:
                meeting.fail("training.seed: must be an integer.")
            else:
                meeting.agree("recipe", lambda offer: "")

        messages = results(*(lambda meeting=meeting: start(meeting) for meeting in started))
        expected = f"rank {failing} on "
        for rank, message in enumerate(messages):
            assert message == "" if rank == failing else message.startswith(expected), message
        assert sum("failed: training.seed: must be an integer." in message for message in messages) == 2
        assert all(meeting.is_over for meeting in started)


def test_failure_after_the_comparison_ends_the_others():
    first, other = meetings()
    assert results(first.agree, other.agree) == ["", ""]
    message, _ = results(first.agree, lambda: other.fail("wandb is not installed."))
    assert message.startswith("rank 1 on ") and message.endswith("failed: wandb is not installed.")
    assert first.is_over and other.is_over


def test_missing_process_is_named():
    started = meetings(4, timeout=0.3, farewell=0.1)
    messages = results(*(meeting.agree for meeting in started[::2]))
    assert all(message.startswith("rank 1, rank 3 did not start within 0 s of rank") for message in messages)
    (message,) = results(meetings(timeout=0.3, farewell=0.1)[1].agree)
    assert message.startswith("rank 0 did not start")


def test_lost_connection_to_rank_0(tmp_path, monkeypatch):
    class Lost(dist.HashStore):
        def wait(self, *_):
            raise RuntimeError("Connection reset by peer\ntrace")

        check = wait

    (message,) = results(Meeting(Lost(), 1, 2, farewell=0.1).agree)
    assert "lost the connection to rank 0: Connection reset by peer. Read the output" in message


def test_nothing_is_reported_in_a_single_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    report_failure(UserError("x"))
    assert process_recipes._current is None
    process_recipes.meet_before_training()


def test_store_of_rank_0_without_torchrun(monkeypatch):
    """Rank 1 fails before torch is imported; rank 0 hosts the store."""
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    process_recipes._meetings = iter([0, 0])
    first = join("env://", 0, 2, timeout=30)
    failing = threading.Thread(target=report_failure, args=(UserError("https://me:word@host is not here.\nx"),))
    failing.start()
    (message,) = results(first.agree)
    failing.join()
    assert message.endswith("failed: https://***@host is not here.")


def test_unlike_recipes_in_a_real_run(tmp_path, cache):
    """Processes with different ``update_frequency`` would wait for each other forever."""
    script = Path(__file__).parents[1] / "faults" / "unlike_recipes.py"
    command = [SCRIPTS / "torchrun", "--standalone", "--nproc_per_node=2", script]
    done = subprocess.run(
        [*command, f"config={DEMO}", *SHORT, f"env.save_dir={tmp_path / 'run'}", "1:training.update_frequency=2"],
        env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("mmf_flava: ")]
    assert len(lines) == 2 and len(set(lines)) == 1, done.stderr
    assert lines[0].startswith("mmf_flava: training.update_frequency: rank 0 on ") and "has 1, rank 1 on " in lines[0]
    assert done.stderr.count("exitcode  : 2") == 2
    assert not (tmp_path / "run" / "checkpoints").exists()
