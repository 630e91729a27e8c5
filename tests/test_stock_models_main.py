"""A model and two datasets of MMF's main branch train round robin beyond their first epoch.

None of them is ours. ``cnn_lstm`` is MMF's smallest model and downloads nothing; ``clevr`` and ``mmimdb`` have the
fields that it needs.
"""

import json
import re

import numpy as np
import pytest
import yaml
from mmf.utils.download import mark_done
from PIL import Image

from tests.finetuning.toys import ZOO
from tests.mmf_versions import needs_main

pytestmark = needs_main

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SIDE = 16

RECIPE = """
multitasking: {type: round_robin}
model_config:
  cnn_lstm:
    cnn:
      layers: {input_dims: [3, 8], output_dims: [8, 4], kernel_sizes: [3, 1]}
    classifier:
      params: {in_dim: 164}    # 2 x 50 of the LSTM, 4 channels of 4 x 4 pixels
dataset_config:
  clevr:
    processors:
      text_processor: &text {type: vocab, params: {vocab: {type: random, vocab_file: words.txt}}}
      answer_processor: &answer {params: {vocab_file: answers.txt}}
  mmimdb:
    image_key: image
    processors:
      text_processor:
        type: vocab
        params:
          max_length: 10
          vocab: {type: random, vocab_file: words.txt, embedding_name: null}
      answer_processor: *answer
      image_processor: {params: {transforms: [ToTensor]}}
training:
  trainer: mmf
  log_interval: 1
  evaluation_interval: 5
  checkpoint_interval: 5
evaluation:
  metrics:
  - multilabel_micro_f1
optimizer:
  type: Adam
  params: {lr: 0.01}
"""


def write_image(path, colour):
    pixels = np.random.default_rng(0).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[4:12, 4:12] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_clevr(data, split, size):
    """Write questions about the colour of a square."""
    root = data / "CLEVR_v1.0" / "CLEVR_v1.0"
    rows = []
    for number in range(size):
        colour = list(COLOURS)[number % 2]
        name = f"CLEVR_{split}_{number}.png"
        write_image(root / "images" / split / name, colour)
        rows.append({"question": "what colour is the square?", "answer": colour, "image_filename": name})
    (root / "questions").mkdir(exist_ok=True)
    (root / "questions" / f"CLEVR_{split}_questions.json").write_text(json.dumps({"questions": rows}))


def write_mmimdb(data, split, size):
    """Write films with posters and plots that contain their genre."""
    root = data / "datasets" / "mmimdb" / "defaults"
    rows = []
    for number in range(size):
        colour = list(COLOURS)[number % 2]
        name = f"{split}_{number}.png"
        write_image(root / "images" / "mmimdb" / "dataset" / name, colour)
        rows.append({"plot": [f"a {colour} square"], "genres": [colour], "image": name})
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder in (root, root / "images", root / "annotations"):  # so that MMF does not download them
        mark_done(str(folder), yaml.safe_load(ZOO.read_text())["mmimdb"]["version"])


@pytest.fixture
def recipe(tmp_path) -> str:
    data = tmp_path / "cache" / "data"
    for split, size in (("train", 12), ("val", 6), ("test", 6)):
        write_clevr(data, split, size)
        write_mmimdb(data, "dev" if split == "val" else split, size)
    (data / "words.txt").write_text("\n".join(["what", "colour", "is", "the", "a", "square", *COLOURS]) + "\n")
    (data / "answers.txt").write_text("\n".join(["<unk>", *COLOURS]) + "\n")
    path = tmp_path / "stock.yaml"
    path.write_text(RECIPE)
    return str(path)


def losses(log: str, split: str) -> dict[int, dict[str, float]]:
    """Return the values of a split in MMF's log: ``{update: {"clevr/logit_bce": ...}}``."""
    values = {}
    for update, rest in re.findall(r"progress: (\d+)/\d+, (.*)", log):
        named = {name: float(value) for name, value in re.findall(rf"{split}/([\w/]+): ([-\w.]+)", rest)}
        if named:
            values[int(update)] = named
    return values


def test_two_datasets_train_beyond_their_first_epoch_and_resume(mmf, recipe, tmp_path):
    """An epoch has 6 updates of 4 samples: 13 updates exceed two epochs, and 20 exceed three."""
    cache = {"MMF_CACHE_DIR": str(tmp_path / "cache")}
    # MMF reads model and dataset from the command line only, and true as a string
    options = ["model=cnn_lstm", "dataset=clevr,mmimdb", "training.batch_size=4", "training.tensorboard=False"]
    result = mmf("mmf_run", *options, "training.max_updates=13", config=recipe, **cache)
    assert result.returncode == 0, result.stderr[-3000:]
    log = (tmp_path / "run" / "train.log").read_text()
    train = losses(log, "train")
    assert list(train) == list(range(1, 14))
    assert {"clevr/logit_bce", "mmimdb/logit_bce"} <= set(train[13])
    assert all(0 < value < 10 for named in train.values() for value in named.values())  # neither NaN nor infinite
    assert train[13]["total_loss"] < train[1]["total_loss"]
    assert list(losses(log, "val")) == [5, 10]
    (tested,) = losses(log, "test").values()  # of the best update
    assert {"clevr/multilabel_micro_f1", "mmimdb/multilabel_micro_f1"} <= set(tested)

    result = mmf("mmf_run", *options, "training.max_updates=20", "checkpoint.resume=True", config=recipe, **cache)
    assert result.returncode == 0, result.stderr[-3000:]
    resumed = losses((tmp_path / "run" / "train.log").read_text(), "train")
    assert max(resumed) == 20 and all(0 < value < 10 for value in resumed[20].values())
    assert (tmp_path / "run" / "models" / "model_20.ckpt").is_file()
