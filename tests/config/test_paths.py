"""The meaning of paths: ``~``, absolute and relative."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.paths import expand_home_folders, resolve_path


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("a/b", "", "a/b"),
        ("a/b", "/data", "/data/a/b"),
        ("a", "~/data", "/home/me/data/a"),
        ("/x", "/data", "/x"),
        ("~/x", "/data", "/home/me/x"),
        ("~", "/data", "/home/me"),
        (Path("~/x"), Path("data"), "/home/me/x"),
        ("", "/data", "/data"),
    ],
)
def test_paths_are_resolved(path, folder, expected):
    assert resolve_path(path, folder) == Path(expected)


def test_home_folders_of_a_config_are_expanded():
    config = OmegaConf.create(
        """
        env: {data_dir: ~/data, save_dir: ./save, empty: null}
        dataset_config: {vqa2: {annotations: {train: [~/a.npy, b.npy]}, inside: '${env.data_dir}/x', text: 'a ~/ b'}}
        """
    )
    assert expand_home_folders(config) is config
    assert config == {
        "env": {"data_dir": "/home/me/data", "save_dir": "./save", "empty": None},
        "dataset_config": {
            "vqa2": {
                "annotations": {"train": ["/home/me/a.npy", "b.npy"]},
                "inside": "/home/me/data/x",
                "text": "a ~/ b",
            }
        },
    }
