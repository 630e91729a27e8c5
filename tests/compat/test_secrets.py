"""Patches that keep credentials out of MMF's log and of config.yaml."""

import logging
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from mmf_flava.compat import flava_run
from mmf_flava.compat.behaviour.secrets import HideSecrets

URL, SHOWN = "https://user:sesame@host/x?token=sesame", "https://***@host/x?***"


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setenv("WORD", "sesame")
    monkeypatch.setattr(flava_run, "_current", True)
    return OmegaConf.create({"name": "${oc.env:WORD}", "url": URL})


def test_stored_config(config, tmp_path):
    from mmf.utils.checkpoint import Checkpoint

    Checkpoint.save_config(SimpleNamespace(config=config, ckpt_foldername=str(tmp_path)))
    text = (tmp_path / "config.yaml").read_text()
    assert "${oc.env:WORD}" in text and SHOWN in text and "sesame" not in text


def test_logged_config(config):
    from mmf.utils.configuration import Configuration

    text = Configuration._convert_node_to_json(None, config)
    assert "${oc.env:WORD}" in text and SHOWN in text and "sesame" not in text


def test_printed_options(config, capsys):
    import mmf_cli.run as module

    module.print(SimpleNamespace(opts=[f"a={URL}"]), flush=True)
    assert capsys.readouterr().out == f"namespace(opts=['a={SHOWN}'])\n"


def test_other_runs_are_not_changed(config, monkeypatch, capsys):
    import mmf_cli.run as module
    from mmf.utils.configuration import Configuration

    monkeypatch.setattr(flava_run, "_current", False)
    module.print(URL)
    assert URL in capsys.readouterr().out
    assert "sesame" in Configuration._convert_node_to_json(None, config)


def test_log_records(capsys):
    logger = logging.getLogger("mmf_flava.test_secrets")
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(HideSecrets())
    logger.addHandler(handler)
    try:
        logger.warning("from %s read %d bytes", URL, 7)
        try:
            raise OSError(f"no {URL}")
        except OSError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    text = capsys.readouterr().err
    assert f"from {SHOWN} read 7 bytes\n" in text and f"OSError: no {SHOWN}" in text and "sesame" not in text
