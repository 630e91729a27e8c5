"""Gloo processes of which one dies, fails, is suspended or stops; intervals are shorter than in real runs."""

import multiprocessing
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mmf_flava.errors import UserError
from mmf_flava.training.peer_watchdog import PEER_DIED, REPEAT, PeerConnection, PeerWatchdog
from mmf_flava.training.signals import STOPPED

SIZE, INTERVAL, MAX_MISSED, GRACE_PERIOD = 3, 0.1, 15, 0.3
FATAL_UPDATE, LAST_UPDATE = 20, 40


def act(event: str, rank: int) -> None:
    """Do what ``event`` describes in this process."""
    match event:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed with a live worker":
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        case "suspended":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "fails":
            raise KeyError("missing")
        case "fails in torch":
            torch.ones(2) @ torch.ones(3)
        case "user error":
            raise UserError(f"Fix this on rank {rank}.")
        case "exits":
            sys.exit(1)
        case "evaluates":  # for much longer than the permitted silence
            end = time.monotonic() + 2 * INTERVAL * MAX_MISSED
            while time.monotonic() < end:
                sum(range(1000))
        case "stops":
            raise SystemExit(STOPPED)


def process(rank: int, folder: Path, event: str, which: tuple[int, ...]) -> None:
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = sys.__stderr__  # pytest has replaced it
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=SIZE)
    update = 0
    peer_watchdog = PeerWatchdog(lambda: update, REPEAT, INTERVAL, MAX_MISSED, GRACE_PERIOD)
    with peer_watchdog:
        assert peer_watchdog.start() == []
        (folder / f"{rank}.ready").touch()
        for update in range(1, LAST_UPDATE + 1):
            time.sleep(0.01)
            if update == FATAL_UPDATE and rank in which:
                act(event, rank)
            dist.all_reduce(torch.ones(1))
    peer_watchdog.stop()
    dist.destroy_process_group()


@pytest.fixture
def run(tmp_path):
    """``run(event, *ranks)`` starts the processes; ``event`` happens on these ranks."""
    started, context, threads = [], multiprocessing.get_context("fork"), torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads

    def run(event: str, *which: int) -> list[multiprocessing.Process]:
        for rank in range(SIZE):
            started.append(context.Process(target=process, args=(rank, tmp_path, event, which)))
            started[-1].start()
        return started

    yield run
    torch.set_num_threads(threads)
    for one in started:
        one.kill()
        one.join()


def exit_codes(processes, seconds: float = 30) -> list[int | None]:
    deadline = time.monotonic() + seconds
    for one in processes:
        one.join(max(0, deadline - time.monotonic()))
    return [one.exitcode for one in processes]


def stderr_of(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.err").read_text()


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("event", "code", "words"),
    [
        ("killed", -signal.SIGKILL, "without an error message: it crashed or was killed"),
        ("killed with a live worker", -signal.SIGKILL, "without an error message: it crashed or was killed"),
        ("suspended", None, "sent no heartbeat for 2 s"),
        ("fails", 1, "with KeyError: 'missing'"),
        ("fails in torch", 1, "with RuntimeError: "),
        ("user error", 1, "UserError: Fix this"),
        ("exits", 1, "with SystemExit: 1"),
    ],
)
def test_other_processes_name_the_failed_one_and_exit(run, tmp_path, rank, event, code, words):
    processes = run(event, rank)
    others = [one for number, one in enumerate(processes) if number != rank]
    assert exit_codes(others) == [PEER_DIED] * (SIZE - 1)
    assert exit_codes([processes[rank]], 10 if code is not None else 0) == [code]
    name = f"rank {rank} on {socket.gethostname()} (process {processes[rank].pid}) "
    for number in {0, 1, 2} - {rank}:
        (line,) = [line for line in stderr_of(tmp_path, number).splitlines() if line.startswith("mmf_flava: ")]
        assert line.startswith(f"mmf_flava: {name}") and words in line and f"at update {FATAL_UPDATE}" in line
        assert line.endswith(f". {REPEAT}.")
        assert "Traceback" not in stderr_of(tmp_path, number)


def test_busy_processes_are_not_reported(run, tmp_path):
    assert exit_codes(run("evaluates", 0, 2)) == [0] * SIZE
    assert not any("mmf_flava" in stderr_of(tmp_path, number) for number in range(SIZE))


def test_processes_that_stop_together_are_not_reported(run):
    assert exit_codes(run("stops", 0, 1, 2)) == [STOPPED] * SIZE


def test_error_on_all_processes_is_raised_by_each(run, tmp_path):
    assert exit_codes(run("user error", 0, 1, 2)) == [1] * SIZE
    assert all(f"Fix this on rank {rank}." in stderr_of(tmp_path, rank) for rank in range(SIZE))


def test_job_continues_after_suspension_of_all_processes(run, tmp_path):
    processes = run("evaluates", 0)
    while not all((tmp_path / f"{rank}.ready").exists() for rank in range(SIZE)):
        time.sleep(0.01)
    for number, seconds in ((signal.SIGSTOP, 2 * INTERVAL * MAX_MISSED), (signal.SIGCONT, 0)):
        for one in processes:
            os.kill(one.pid, number)
        time.sleep(seconds)
    assert exit_codes(processes) == [0] * SIZE


@pytest.fixture
def connection():
    """A PeerConnection and the socket at its other end."""
    local, remote = socket.socketpair()
    with local, remote:
        yield PeerConnection(local, None), remote


def test_partial_messages_are_buffered(connection):
    peer, remote = connection
    assert peer.receive() == []
    remote.send(b'{"a": 1}\n{"b"')
    assert peer.receive() == [{"a": 1}]
    remote.send(b": 2}\n")
    assert peer.receive() == [{"b": 2}]
    remote.close()
    assert peer.receive() is None
    peer.send(ignored="connection closed")


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\n", b"7\n", b"\xff\n", b"[" * 2000 + b"\n", b"x" * 4096])
def test_invalid_messages_close_the_connection(connection, words):
    peer, remote = connection
    remote.send(words)
    assert peer.receive() is None


def test_connection_with_a_wrong_token_is_dropped(connection):
    peer, remote = connection
    peer_watchdog = PeerWatchdog(lambda: 0)
    peer_watchdog._selector, peer_watchdog._token = selectors.DefaultSelector(), "secret"
    peer_watchdog._selector.register(peer.socket, selectors.EVENT_READ, peer)
    remote.send(b'{"token": "guess", "rank": 1}\n{"error": "ignored"}\n')
    peer_watchdog._handle_messages(peer)
    assert remote.recv(1) == b"" and not peer_watchdog._selector.get_map()
    peer_watchdog._selector.close()


def test_single_process_is_not_watched():
    peer_watchdog = PeerWatchdog(lambda: 0)
    assert peer_watchdog.start() == []
    with pytest.raises(RuntimeError), peer_watchdog:
        raise RuntimeError
    peer_watchdog.stop()
