"""Toy data for MMF's smallest model, ``cnn_lstm``: the files of ``clevr`` and ``mmimdb``, which nothing downloads."""

import json
from pathlib import Path

import numpy as np
import yaml
from mmf.utils.download import mark_done
from PIL import Image

from tests.finetuning.toys import COLOURS, ZOO, write_lines

SIDE = 16
SHOWN = ("red", "blue")
# the model for images of 16 x 16 pixels; the classifier reads 2 x 50 values of the LSTM and 4 channels of 4 x 4 pixels
MODEL = {
    "cnn": {"layers": {"input_dims": [3, 8], "output_dims": [8, 4], "kernel_sizes": [3, 1]}},
    "classifier": {"params": {"in_dim": 164}},
}
WITH_DROPOUT = {**MODEL, "classifier": {"params": {"in_dim": 164, "num_layers": 1, "hidden_dim": 16, "dropout": 0.3}}}
TEXT = {"type": "vocab", "params": {"vocab": {"type": "random", "vocab_file": "words.txt"}}}
ANSWERS = {"params": {"vocab_file": "answers.txt"}}
# the sections of MMF's config that all recipes of this model share
RECIPE = {
    "model_config": {"cnn_lstm": MODEL},
    "dataset_config": {"clevr": {"processors": {"text_processor": TEXT, "answer_processor": ANSWERS}}},
    "evaluation": {"metrics": ["multilabel_micro_f1"]},
    "optimizer": {"type": "Adam", "params": {"lr": 0.01}},
}


def write_recipe(path: Path, **sections: object) -> Path:
    """Write ``RECIPE`` with additional sections to a YAML file."""
    path.write_text(yaml.safe_dump({**RECIPE, **sections}))
    return path


def write_vocabularies(data: Path) -> None:
    """Write the words of the questions and plots, and the answers."""
    words = ["what", "colour", "is", "the", "a", "square", *SHOWN]
    (data / "words.txt").write_text("\n".join(words) + "\n")
    (data / "answers.txt").write_text("\n".join(["<unk>", *SHOWN]) + "\n")


def write_image(path: Path, colour: str, number: int = 0) -> None:
    """Write a coloured square on a noisy background; ``number`` seeds the noise."""
    pixels = np.random.default_rng(number).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[4:12, 4:12] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_clevr(data: Path, split: str, size: int) -> None:
    """Write questions about the colour of a square."""
    root = data / "CLEVR_v1.0" / "CLEVR_v1.0"
    rows = []
    for number in range(size):
        colour = SHOWN[number % 2]
        name = f"CLEVR_{split}_{number}.png"
        write_image(root / "images" / split / name, colour, number)
        rows.append({"question": "what colour is the square?", "answer": colour, "image_filename": name})
    (root / "questions").mkdir(exist_ok=True)
    (root / "questions" / f"CLEVR_{split}_questions.json").write_text(json.dumps({"questions": rows}))


def write_mmimdb(data: Path, split: str, size: int) -> None:
    """Write films with posters and plots that contain their genre."""
    root = data / "datasets" / "mmimdb" / "defaults"
    rows = []
    for number in range(size):
        colour = SHOWN[number % 2]
        name = f"{split}_{number}.png"
        write_image(root / "images" / "mmimdb" / "dataset" / name, colour, number)
        rows.append({"plot": [f"a {colour} square"], "genres": [colour], "image": name})
    write_lines(root / "annotations" / f"{split}.jsonl", rows)
    for folder in (root, root / "images", root / "annotations"):  # so that MMF does not download them
        mark_done(str(folder), yaml.safe_load(ZOO.read_text())["mmimdb"]["version"])
