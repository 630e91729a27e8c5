"""The model card of ``convert --to hf``: facts of the run, no secrets and paths, and examples that run."""

import json
import re
import shutil

import pytest
import torch
import yaml
from PIL import Image
from transformers import FlavaForPreTraining

from mmf_flava.convert import convert, main
from mmf_flava.data.tokenizer import build_wordpiece
from mmf_flava.training.data_summary import _describe_path
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "on", "beach", "bowl", "of", "fruit", "##s"]
CONFIG = """
model: flava
datasets: pmd
training: {batch_size: 8, max_updates: 40, num_workers: 3}
optimizer: {type: AdamW, params: {lr: 0.001}}
model_config:
  flava:
    codebook: {type: kmeans, path: "https://user:word@host/codebook?token=hidden"}
    image_encoder: {pretrained: /home/me/vit, hidden_size: 32}
dataset_config: {pmd: {data_dir: /home/me/private}}
env: {save_dir: /home/me/run}
"""
DATA = {
    "pmd": {
        "train": {
            "records": 1300,
            "parts": [
                {"name": "coco", "counts": {"images": 1300, "pairs": 6500}, "licence": "CC BY 4.0; see <Flickr>"},
                {"name": "my|own", "counts": {"images": 9}},
            ],
        },
        "val": {"records": 137, "parts": []},
    }
}
EVALUATION = {
    "split": "test",
    "update": 40,
    "losses": {"flava_mim": 1.25},
    "zero_shot": {"accuracy": 0.125, "count": 360, "classes": ["one", "two"]},
    "retrieval": {"images": 360, "captions": 191, "image_to_text_r1": 0.375},
}
SUMMARY = {"updates": 40, "samples": 320, "batch_size": 8, "device": "cpu", "last_losses": {"flava_mim": 1.5}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder as ``save_pretrained`` writes it, with a tokenizer."""
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    build_wordpiece(WORDS).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def run(weights, tmp_path_factory):
    """A run folder with a checkpoint of update 40."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint = folder / "checkpoints" / "update_00000040"
    convert(weights, checkpoint / "model.safetensors", "mmf_flava")
    shutil.copy(weights / "tokenizer.json", checkpoint)
    (folder / "config.yaml").write_text(CONFIG)
    for name, content in (("data", DATA), ("evaluation", EVALUATION), ("summary", SUMMARY)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def card(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "my_model"
    checkpoint = run / "checkpoints" / "update_00000040"
    assert main([str(checkpoint), str(out), "--to", "hf", "--license", "CC-BY-4.0"]) == 0
    return out / "README.md"


def test_the_card_has_the_facts_of_the_run(card):
    text = card.read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == (
        *("cc-by-4.0", "transformers"),
        "feature-extraction",
    )
    assert "flava" in front["tags"] and "# my_model\n" in text
    for row in (
        "| pmd | 1,300 | 137 | \N{EN DASH} |",
        "| pmd | train | coco | 1,300 images, 6,500 pairs | CC BY 4.0; see &lt;Flickr&gt; |",
        r"| pmd | train | my\|own | 9 images | not recorded |",
        "| flava_mim | \N{EN DASH} | 1.50 | 1.25 |",
        "| test | zero-shot accuracy | 0.1250 | 360 images of 2 classes |",
        "| test | image to text recall@1 | 0.3750 | 360 images, 191 captions |",
        "| Updates | 40 |",
        "optimizer.params.lr: 0.001",
    ):
        assert row in text


def test_the_card_has_neither_secrets_nor_local_paths(card, run):
    text = card.read_text()
    assert not re.search(r"/home|/tmp|=hidden|word@|num_workers", text) and str(run) not in text


def test_the_examples_of_the_card_run_and_agree(card, tmp_path, monkeypatch):
    Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    printed = []
    examples = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    for example in examples:
        exec(example.replace("USER/MODEL", str(card.parent)), {"print": printed.append})
    hugging_face, embedder = (torch.as_tensor(values) for values in printed)
    assert hugging_face.shape == (1, 2)
    assert torch.allclose(hugging_face, embedder, atol=1e-5)


def test_scores_of_other_weights_are_not_in_the_card(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "checkpoints" / "update_00000040").rename(other / "checkpoints" / "update_00000020")
    convert(other / "checkpoints" / "update_00000020", tmp_path / "hf", "hf")
    text = (tmp_path / "hf" / "README.md").read_text()
    assert "Not measured with these weights; the run has scores of other weights." in text
    assert "0.1250" not in text and "license: unknown" in text and "| Samples |" not in text


def test_weights_that_are_not_from_a_run_have_a_short_card_and_an_edited_one_is_kept(weights, tmp_path):
    lines = convert(weights, tmp_path / "hf", "hf")
    card = tmp_path / "hf" / "README.md"
    assert f"Wrote {card}, the model card. Read it before you publish the weights." in lines
    assert "Not measured." in card.read_text() and "## Data" not in card.read_text()
    card.write_text("mine")
    lines = convert(weights, tmp_path / "hf", "hf", force=True)
    assert f"{card} exists and was kept. Delete it to write a new model card." in lines and card.read_text() == "mine"


def test_an_invalid_licence_is_an_error(weights, tmp_path, capsys):
    assert main([str(weights), str(tmp_path / "hf"), "--to", "hf", "--license", "my: own"]) == 2
    assert "--license: 'my: own' is not the identifier of a licence." in capsys.readouterr().err


def test_parts_are_named_by_their_manifests_without_paths(tmp_path):
    (tmp_path / "shards").mkdir()
    manifest = {"kind": "pmd", "input": {"part": "coco", "files": ["/home"]}, "counts": {"pairs": 3}, "licence": "CC"}
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    expected = {"name": "coco", "kind": "pmd", "counts": {"pairs": 3}, "licence": "CC"}
    assert _describe_path(tmp_path / "shards") == _describe_path(tmp_path / "shards" / "*.tar") == expected
    assert _describe_path(tmp_path / "photos") == {"name": "photos"}
    assert _describe_path("https://host/a/00.tar?signature=hidden") == {"name": "00.tar"}
