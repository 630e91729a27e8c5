"""Configs that are stored or logged contain no credentials."""

from omegaconf import OmegaConf

from mmf_flava.config.secrets import to_public, to_public_yaml

CONFIG = {
    "name": "${oc.env:SECRET}",
    "missing": "${env:NOT_SET}",
    "path": "${env.data_dir}/x",
    "env": {"data_dir": "~/data"},
    "weights": "https://user:word@host/x.pt?token=word",
    "shards": ["https://host/{00..09}.tar?sig=word", {"url": "https://host/a"}],
    "lr": 0.1,
    "text": "1e-3",
    "nothing": None,
}


def test_interpolations_are_kept_and_credentials_are_hidden(monkeypatch):
    monkeypatch.setenv("SECRET", "word")
    public = to_public(OmegaConf.create(CONFIG))
    assert public == {
        **CONFIG,
        "weights": "https://***@host/x.pt?***",
        "shards": ["https://host/{00..09}.tar?***", {"url": "https://host/a"}],
    }
    text = to_public_yaml(OmegaConf.create(CONFIG))
    assert "word" not in text and OmegaConf.to_container(OmegaConf.create(text)) == public
