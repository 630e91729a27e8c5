"""Gloo processes of which one dies, fails, pauses or leaves; the periods are a small part of a real run's."""

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
from mmf_flava.training.roll_call import PEER_DIED, Line, RollCall
from mmf_flava.training.signals import STOPPED

SIZE, BEAT, PATIENCE, GRACE = 3, 0.1, 15, 0.3
FATAL_UPDATE, LAST_UPDATE = 20, 40


def fate(act: str, rank: int) -> None:
    """What happens to one process, or to all of them, at an update."""
    match act:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed beside its worker":
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        case "paused":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "fails":
            raise KeyError("no such thing")
        case "fails in torch":
            torch.ones(2) @ torch.ones(3)
        case "asks to mend":
            raise UserError(f"Mend this, says rank {rank}.")
        case "exits":
            sys.exit(1)
        case "evaluates":  # much longer than a silence may be
            end = time.monotonic() + 2 * BEAT * PATIENCE
            while time.monotonic() < end:
                sum(range(1000))
        case "stops":
            raise SystemExit(STOPPED)


def process(rank: int, folder: Path, act: str, which: tuple[int, ...]) -> None:
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = sys.__stderr__  # pytest has put another in its place
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=SIZE)
    update = 0
    roll_call = RollCall(lambda: update, BEAT, PATIENCE, GRACE)
    with roll_call:
        assert roll_call.start() == []
        (folder / f"{rank}.ready").touch()
        for update in range(1, LAST_UPDATE + 1):
            time.sleep(0.01)
            if update == FATAL_UPDATE and rank in which:
                fate(act, rank)
            dist.all_reduce(torch.ones(1))
    roll_call.leave()
    dist.destroy_process_group()


@pytest.fixture
def run(tmp_path):
    """``run(act, ranks)`` starts the processes."""
    started, context, threads = [], multiprocessing.get_context("fork"), torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads

    def run(act: str, *which: int) -> list[multiprocessing.Process]:
        for rank in range(SIZE):
            started.append(context.Process(target=process, args=(rank, tmp_path, act, which)))
            started[-1].start()
        return started

    yield run
    torch.set_num_threads(threads)
    for one in started:
        one.kill()
        one.join()


def codes(processes, seconds: float = 30) -> list[int | None]:
    deadline = time.monotonic() + seconds
    for one in processes:
        one.join(max(0, deadline - time.monotonic()))
    return [one.exitcode for one in processes]


def said(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.err").read_text()


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        ("killed", -signal.SIGKILL, "without a word: it was killed"),
        ("killed beside its worker", -signal.SIGKILL, "without a word: it was killed"),
        ("paused", None, "no sign of life for 2 s"),
        ("fails", 1, "with KeyError: 'no such thing'"),
        ("fails in torch", 1, "with RuntimeError: "),
        ("asks to mend", 1, "UserError: Mend this"),
        ("exits", 1, "with SystemExit: 1"),
    ],
)
def test_the_others_name_it_and_end(run, tmp_path, rank, act, code, words):
    processes = run(act, rank)
    others = [one for number, one in enumerate(processes) if number != rank]
    assert codes(others) == [PEER_DIED] * (SIZE - 1)
    assert codes([processes[rank]], 10 if code is not None else 0) == [code]
    name = f"rank {rank} on {socket.gethostname()} (process {processes[rank].pid}) "
    for number in {0, 1, 2} - {rank}:
        (line,) = [line for line in said(tmp_path, number).splitlines() if line.startswith("mmf_flava: ")]
        assert line.startswith(f"mmf_flava: {name}") and words in line and f"at update {FATAL_UPDATE}" in line
        assert "checkpoint.resume=true" in line
        assert "Traceback" not in said(tmp_path, number)


def test_who_is_busy_is_not_missed(run, tmp_path):
    assert codes(run("evaluates", 0, 2)) == [0] * SIZE
    assert not any("mmf_flava" in said(tmp_path, number) for number in range(SIZE))


def test_all_that_stop_when_asked_miss_nobody(run):
    assert codes(run("stops", 0, 1, 2)) == [STOPPED] * SIZE


def test_a_mistake_that_all_make_is_told_by_each(run, tmp_path):
    assert codes(run("asks to mend", 0, 1, 2)) == [1] * SIZE
    assert all(f"Mend this, says rank {rank}." in said(tmp_path, rank) for rank in range(SIZE))


def test_a_job_that_was_suspended_goes_on(run, tmp_path):
    processes = run("evaluates", 0)
    while not all((tmp_path / f"{rank}.ready").exists() for rank in range(SIZE)):
        time.sleep(0.01)
    for number, seconds in ((signal.SIGSTOP, 2 * BEAT * PATIENCE), (signal.SIGCONT, 0)):
        for one in processes:
            os.kill(one.pid, number)
        time.sleep(seconds)
    assert codes(processes) == [0] * SIZE


@pytest.fixture
def line():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Line(ours, None), theirs


def test_a_line_gives_whole_messages(line):
    ours, theirs = line
    assert ours.receive() == []
    theirs.send(b'{"a": 1}\n{"b"')
    assert ours.receive() == [{"a": 1}]
    theirs.send(b": 2}\n")
    assert ours.receive() == [{"b": 2}]
    theirs.close()
    assert ours.receive() is None
    ours.send(nobody="hears")


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\n", b"7\n", b"\xff\n", b"[" * 2000 + b"\n", b"x" * 4096])
def test_a_stranger_is_not_listened_to(line, words):
    ours, theirs = line
    theirs.send(words)
    assert ours.receive() is None


def test_a_stranger_that_knows_no_token_is_dropped(line):
    ours, theirs = line
    roll_call = RollCall(lambda: 0)
    roll_call._selector, roll_call._token = selectors.DefaultSelector(), "secret"
    roll_call._selector.register(ours.socket, selectors.EVENT_READ, ours)
    theirs.send(b'{"token": "guess", "rank": 1}\n{"error": "all must end"}\n')
    roll_call._hear(ours)
    assert theirs.recv(1) == b"" and not roll_call._selector.get_map()
    roll_call._selector.close()


def test_one_process_needs_none():
    roll_call = RollCall(lambda: 0)
    assert roll_call.start() == []
    with pytest.raises(RuntimeError), roll_call:
        raise RuntimeError
    roll_call.leave()
