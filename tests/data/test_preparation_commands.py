"""Errors about a missing codebook or tokenizer name a command that creates it for the recipe of the run."""

import shlex

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.model import CodebookConfig
from mmf_flava.data.preparation_commands import codebook_command, tokenizer_command
from mmf_flava.data.prepare.__main__ import parser
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import load_codebook


@pytest.fixture
def recipe():
    """A run of a model with a grid of 4 x 4 patches whose codebook sees 24 x 24 pixels."""
    config = OmegaConf.create(
        {
            "model": "flava",
            "datasets": "imagenet,pmd,ccnews_bookcorpus",
            "data": "/my data",
            "model_config": {
                "flava": {
                    "image_encoder": {"image_size": 32, "patch_size": 8},
                    "text_encoder": {"vocab_size": 300},
                    "codebook": {"type": "kmeans"},
                }
            },
            "dataset_config": {
                "pmd": {
                    "data_dir": "${data}",
                    "splits": {"train": {"a.csv": 1.0, "b": 2.0}},
                    "processors": {"image_processor": {"params": {"codebook_size": 24}}},
                },
                "imagenet": {"data_dir": "/images", "splits": {"train": ["train"]}},
            },
        }
    )
    registry.register("config", config)
    yield config
    registry.unregister("config")


def parse(message):
    """Parse the command in a message with the command line's own parser."""
    command = message.split("`")[1] if "`" in message else message
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "mmf_flava.data.prepare"]
    return parser().parse_args(words[3:])


def test_missing_codebook(recipe, tmp_path):
    with pytest.raises(UserError, match="is not a file of centroids") as error:
        load_codebook(CodebookConfig(type="kmeans", path=str(tmp_path / "none.safetensors"), vocab_size=77))
    found = parse(str(error.value))
    assert (found.image_size, found.patch_size, found.codes) == (24, 6, 77)
    assert [str(path) for path in found.src] == ["/my data/a.csv", "/my data/b"]
    assert found.out == tmp_path / "none.safetensors"
    with pytest.raises(UserError, match="path is not set") as error:
        load_codebook(CodebookConfig(type="kmeans", vocab_size=77))
    assert parse(str(error.value)).codes == 77


def test_missing_tokenizer(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(UserError) as error:
            load_tokenizer(folder)
        found = parse(str(error.value))
        assert (found.vocabulary, found.out) == (300, folder)
        assert [str(path) for path in found.src] == ["/my data/a.csv", "/my data/b", "TEXTS"]


def test_sizes_without_pairs_and_without_a_run(recipe):
    recipe.datasets = "imagenet"
    del recipe.dataset_config.pmd
    assert "--src /images/train --image-size 32 --patch-size 8 --codes 5" in codebook_command("c", 5)
    assert "--src TEXTS --vocabulary 300" in tokenizer_command("t")
    registry.unregister("config")
    assert "--src IMAGES --image-size PIXELS" in codebook_command("c", 5)
    assert "--src TEXTS --vocabulary TOKENS --out t" in tokenizer_command("t")
