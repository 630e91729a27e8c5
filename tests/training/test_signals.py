"""Graceful stops on signals."""

import os
import signal
import threading
import time

import pytest
import torch

from mmf_flava.training.signals import SIGNALS, StopSignals

CPU = torch.device("cpu")


def send(number, after=0.0):
    """Send a signal to this process, now or after some seconds from another thread."""
    if not after:
        os.kill(os.getpid(), number)
        return
    threading.Timer(after, os.kill, (os.getpid(), number)).start()


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_recorded_and_does_not_kill(number):
    with StopSignals() as signals:
        assert not signals.received_by_any(CPU)
        send(number)
        assert signals.name == signal.Signals(number).name
        assert signals.received_by_any(CPU)


@pytest.fixture(autouse=True)
def started_without_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_sighup_stays_ignored_with_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as signals:
        send(signal.SIGHUP)
        assert signals.name is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        send(signal.SIGTERM)
        assert signals.name == "SIGTERM"


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_sigterm_and_sighup_are_ignored_while_exiting():
    """torchrun sends SIGTERM to all processes as soon as the first one exits, while others are still exiting."""
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with StopSignals() as signals:
            signals.ignore_while_exiting()
        send(signal.SIGTERM)
        send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGINT) == before[SIGNALS.index(signal.SIGINT)], "Ctrl-C still kills the process"
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_second_ctrl_c_raises_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        send(signal.SIGTERM)
        assert signals.name == "SIGTERM"
        send(signal.SIGINT)


def test_signal_interrupts_work():
    with StopSignals() as signals:
        assert signals.run_unless_stopped(lambda: "done") == "done"
        send(signal.SIGTERM, after=0.1)
        started = time.monotonic()
        assert signals.run_unless_stopped(lambda: time.sleep(60)) is None
        assert time.monotonic() - started < 30
        assert signals.run_unless_stopped(lambda: "started after the signal") is None


def test_signal_interrupts_work_that_catches_exceptions():
    """Image decoding catches every Exception and would report a bad record."""

    def work():
        try:
            send(signal.SIGTERM)
        except Exception:
            return "a bad record"

    with StopSignals() as signals:
        assert signals.run_unless_stopped(work) is None


def test_signal_outside_of_interruptible_work_raises_nothing():
    with StopSignals() as signals:
        send(signal.SIGTERM, after=0.05)
        time.sleep(0.2)  # time.sleep continues after the handler returns
        assert signals.name == "SIGTERM"
