"""Writing to a closed pipe."""

import io
import logging
import os
import sys

import pytest
from tqdm import tqdm

from mmf_flava.training.closed_output import handle_closed_output
from mmf_flava.training.signals import StopRequest, StopSignals


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_output_is_discarded_and_reported_after_the_pipe_is_closed(name, monkeypatch):
    reader, writer = os.pipe()
    stream = io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True)
    monkeypatch.setattr(sys, name, stream)
    closed: list[str] = []
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    with handle_closed_output(closed.append):
        bar = tqdm(total=2, file=stream, mininterval=0)
        print("written", file=stream, flush=True)
        assert b"written" in os.read(reader, 1000) and not closed
        os.close(reader)
        bar.update()
        print("discarded", file=stream, flush=True)
        logger.error("discarded")
        bar.close()
    assert closed == [name]
    print("also after the context", file=stream, flush=True)
    assert "write" not in vars(stream)


def test_buffered_output(monkeypatch):
    reader, writer = os.pipe()
    closed: list[str] = []
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        os.close(reader)
        with handle_closed_output(closed.append):
            print("buffered")
            assert not closed
            stream.flush()
            assert closed == ["stdout"]


def test_stream_without_file_descriptor_and_missing_stream(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    closed: list[str] = []
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", None)
    with handle_closed_output(closed.append):
        print("x", end="")
    assert set(closed) == {"stdout"}


def test_closed_output_is_a_stop_request():
    signals = StopSignals()
    signals.output_closed("stdout")
    signals.output_closed("stderr")
    assert signals.name == "a closed stdout"
    assert signals.run_unless_stopped(lambda: "not started") is None
    signals = StopSignals()
    assert signals.run_unless_stopped(lambda: signals.output_closed("stdout")) is None, "interrupts an evaluation"
    assert not issubclass(StopRequest, Exception)
