"""MMF's log: each record once on the terminal and in each file, by the first process, above a progress bar."""

import logging
import subprocess
import sys

import pytest
from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from tests.mmf_versions import needs_main


def test_each_record_is_logged_once_by_the_first_process(mmf, tmp_path):
    options = [f"evaluation.{name}=null" for name in ("examples", "zero_shot", "retrieval")]
    options += ["training.sharding=ddp", "training.log_interval=1"]
    done = mmf("mmf_run", *options, processes=2)
    assert done.returncode == 0, done.stderr
    if mmf_api.MMF_VERSION == "main":  # rc10 prints the options before the process group exists
        assert done.stdout.count("Overriding option training.sharding to ddp") == 1
    (log,) = (tmp_path / "run" / "logs").glob("train_*.log")
    for text in (done.stdout, (tmp_path / "run" / "train.log").read_text(), log.read_text()):
        for line in ("Training 1,710,947 parameters", "update 1/4:", "update 4/4:", "Saved ", "Trained flava "):
            assert [line in row and "training: " not in row for row in text.splitlines()].count(True) == 1, line
        assert all(row.count("update ") < 2 for row in text.splitlines())


def test_redirection_adds_no_handler_to_a_silent_logger(capsys):
    logger, file = logging.getLogger("a_process_of_rank_1"), logging.NullHandler()
    logger.addHandler(file)
    with mmf_api.redirect_logging_to_tqdm():
        assert logger.handlers == [file]


def test_redirection_replaces_terminal_handlers(capsys):
    logger, handler = logging.getLogger("on_the_terminal"), logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    try:
        with mmf_api.redirect_logging_to_tqdm():
            assert len(logger.handlers) == 1 and handler not in logger.handlers
        assert logger.handlers == [handler]
    finally:
        logger.removeHandler(handler)


@needs_main
@pytest.mark.parametrize("decision", [True, False])
def test_only_runs_of_flava_log_a_python_warning_once(decision, tmp_path):
    code = f"""
import warnings
from mmf.common.registry import registry
from omegaconf import OmegaConf
env = dict(save_dir={str(tmp_path)!r}, log_dir="")
registry.register("config", OmegaConf.create(dict(env=env, training=dict(logger_level="info"))))
from mmf.utils.logger import setup_logger
from mmf_flava.compat.flava_run import set_current
set_current({decision})
setup_logger()
warnings.warn("beware")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    texts = (done.stdout, (tmp_path / "train.log").read_text(), log.read_text())
    assert all((text.count("UserWarning: beware") == 1) == decision for text in texts)


def test_log_outside_a_run_uses_python_logging(caplog, monkeypatch):
    monkeypatch.setitem(registry.mapping["state"], "writer", None)
    with caplog.at_level(logging.INFO):
        mmf_api.log("a message")
    assert [record.getMessage() for record in caplog.records] == ["a message"]
