import os
import signal
import threading
import time

import pytest
import torch

from mmf_flava.training.signals import SIGNALS, Signals

CPU = torch.device("cpu")


def send(number, after=0.0):
    """A signal to this process, now or from another thread."""
    if not after:
        os.kill(os.getpid(), number)
        return
    threading.Timer(after, os.kill, (os.getpid(), number)).start()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_ends_nothing(number):
    with Signals() as signals:
        assert not signals.came_to_any(CPU)
        send(number)
        assert signals.name == signal.Signals(number).name
        assert signals.came_to_any(CPU)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_an_end_that_was_asked_for_keeps_its_exit_code():
    """torchrun sends SIGTERM to all processes as soon as the first has ended; one of them may still be about to."""
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with Signals() as signals:
            signals.ending()
        send(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == before[SIGNALS.index(signal.SIGINT)], "Ctrl-C still ends it at once"
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_a_second_interrupt_ends_it_at_once():
    with pytest.raises(KeyboardInterrupt), Signals() as signals:
        send(signal.SIGTERM)
        assert signals.name == "SIGTERM"
        send(signal.SIGINT)


def test_waiting_is_cut_short():
    with Signals() as signals:
        assert signals.unless_stopped(lambda: "done") == "done"
        send(signal.SIGTERM, after=0.1)
        began = time.monotonic()
        assert signals.unless_stopped(lambda: time.sleep(60)) is None
        assert time.monotonic() - began < 30
        assert signals.unless_stopped(lambda: "begun after the signal") is None


def test_work_that_survives_any_exception_is_cut_short_too():
    """As the decoding of a picture is, which would take the signal for a damaged picture."""

    def work():
        try:
            send(signal.SIGTERM)
        except Exception:
            return "a bad record"

    with Signals() as signals:
        assert signals.unless_stopped(work) is None


def test_outside_of_waiting_nothing_is_raised():
    with Signals() as signals:
        send(signal.SIGTERM, after=0.05)
        time.sleep(0.2)  # a sleep that goes on after the handler has returned
        assert signals.name == "SIGTERM"
