"""Where MMF's log lines go: once to the terminal, once to each file, above a progress bar, by the first process."""

import logging
import subprocess
import sys

from mmf_flava.compat import mmf_api
from tests.lines import needs_main


def test_each_line_is_said_once_and_by_the_first_process(mmf, tmp_path):
    options = [f"evaluation.{name}=null" for name in ("examples", "zero_shot", "retrieval")]
    options += ["training.sharding=ddp", "training.log_interval=1"]
    done = mmf("mmf_run", *options, processes=2)
    assert done.returncode == 0, done.stderr
    if mmf_api.LINE == "main":  # rc10 prints the options before it knows its processes
        assert done.stdout.count("Overriding option training.sharding to ddp") == 1
    (log,) = (tmp_path / "run" / "logs").glob("train_*.log")
    for said in (done.stdout, (tmp_path / "run" / "train.log").read_text(), log.read_text()):
        for line in ("Training 1,710,947 parameters", "update 1/4:", "update 4/4:", "saved ", "Trained flava "):
            assert [line in row and "training: " not in row for row in said.splitlines()].count(True) == 1, line
        assert all(row.count("update ") < 2 for row in said.splitlines())


def test_quiet_console_makes_no_logger_speak(capsys):
    logger, file = logging.getLogger("a_process_of_rank_1"), logging.NullHandler()
    logger.addHandler(file)
    with mmf_api.quiet_console():
        assert logger.handlers == [file]


def test_quiet_console_takes_the_handlers_of_the_terminal(capsys):
    logger, handler = logging.getLogger("on_the_terminal"), logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    try:
        with mmf_api.quiet_console():
            assert len(logger.handlers) == 1 and handler not in logger.handlers
        assert logger.handlers == [handler]
    finally:
        logger.removeHandler(handler)


@needs_main
def test_a_python_warning_is_logged_once(tmp_path):
    code = f"""
import warnings
from mmf.common.registry import registry
from omegaconf import OmegaConf
env = dict(save_dir={str(tmp_path)!r}, log_dir="")
registry.register("config", OmegaConf.create(dict(env=env, training=dict(logger_level="info"))))
from mmf.utils.logger import setup_logger
setup_logger()
warnings.warn("beware")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    for said in (done.stdout, (tmp_path / "train.log").read_text(), log.read_text()):
        assert said.count("UserWarning: beware") == 1
