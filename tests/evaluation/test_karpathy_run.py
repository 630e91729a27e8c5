"""Runs the COCO recipe with ``mmf_run`` on 300 toy images whose captions list their colours."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mmf_flava.data.prepare.demo import train_tokenizer

CONFIGS = Path(__file__).parents[2] / "projects" / "flava" / "configs"
COLOURS = ["black", "dark", "grey", "bright", "white"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The COCO recipe with the demo's model, random weights and toy data."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "val2014").mkdir()
    rng, entries = np.random.default_rng(0), []
    for n in range(300):
        shades = rng.integers(0, 5, (3, 3))
        pixels = np.kron(60 * shades, np.ones((8, 8)))[..., None].repeat(3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / f"{n}.png")
        rows = [" ".join(COLOURS[shade] for shade in row) for row in shades]
        sentences = [{"raw": text, "imgid": n, "sentid": 10 * n + k} for k, text in enumerate([*rows, *rows])]
        about = {"filepath": "val2014", "filename": f"{n}.png", "imgid": n, "cocoid": n}
        entries.append({**about, "split": "test", "sentences": sentences})
    (folder / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    (folder / "tokenizer").mkdir()
    train_tokenizer(COLOURS, 200).save(str(folder / "tokenizer" / "tokenizer.json"))
    text = {"params": {"tokenizer": "tokenizer", "max_length": 24}}
    losses = [{"type": "flava_itm"}, {"type": "flava_mim"}]
    overrides = {
        "includes": [str(CONFIGS / "retrieval" / "coco.yaml"), str(CONFIGS / "models" / "flava_demo.yaml")],
        "dataset_config": {"karpathy": {"data_dir": str(folder), "processors": {"text_processor": text}}},
        "model_config": {"flava": {"codebook": {"type": "cached", "path": None}, "losses": losses}},
        # the dataset has no masks, so losses are not computed although they are enabled
        "evaluation": {"losses": True, "retrieval": {"rerank": 5}},
        "checkpoint": {"resume_file": None, "resume_pretrained": False},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(overrides))
    return folder / "recipe.yaml"


def test_results_are_equal_for_one_and_two_processes(mmf, recipe, tmp_path):
    found = []
    for processes in (1, 2):
        # without the cache, because otherwise the second run would read the embeddings of the first
        result = mmf("mmf_run", "evaluation.features_dir=null", config=str(recipe), processes=processes)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "(300 images, 1500 captions)" in result.stdout and "Re-ranked by image-text matching: " in result.stdout
        found.append(json.loads((tmp_path / "run" / "evaluation.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["task"] == "coco" and found[0]["losses"] == {}
    recalls = {name: value for name, value in found[0]["retrieval"].items() if "_r" in name}
    assert len(recalls) == 12 and all(0 <= value < 1 for value in recalls.values())
    assert recalls["text_to_image_r10"] > 0 and recalls["image_to_text_r10"] > 0
