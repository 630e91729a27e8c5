"""Classification of a user's own data that needs both inputs: finetuning by a recipe and ``data_dir`` alone.

    python benchmarks/own_data.py FOLDER [--recipe RECIPE] [--seeds 1 2 3] [OPTION ...]

Writes FOLDER/my.csv with 300 images, titles and labels, then runs the recipe for each seed on both inputs, on the
images only and on the titles only, and prints the accuracy on the held-out test split. Each of the three colours of an
image occurs equally often with each of three words in the title, and the label is a Latin square of both, so that
either of them alone says nothing about the label (accuracy 1/3).
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmf_flava.command import ArgumentParser, command
from mmf_flava.errors import UserError

LABELS = ("accept", "check", "reject")
COLOURS = ((200, 60, 50), (60, 170, 70), (60, 80, 200))
SIZES = ("small", "medium", "large")
ADJECTIVES = ("new", "used", "old", "cheap", "rare")
NOUNS = ("box", "cup", "lamp", "chair", "bag", "clock")
DATA = "dataset_config.image_text_classification"
CASES = {
    "both": (),
    "images only": (f"{DATA}.processors.text_processor=null",),
    "titles only": (f"{DATA}.processors.image_processor=null",),
}


def write(folder: Path, count: int = 300, seed: int = 0) -> Path:
    """Write ``count`` images of 64 x 64 pixels and ``my.csv`` with the columns image, title and label; return it."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    combinations = rng.permutation(np.arange(count) % 9)
    with open(folder / "my.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "title", "label"])
        for number, combination in enumerate(combinations.tolist()):
            colour, size = divmod(combination, 3)
            name = f"images/{number:03}.png"
            _draw(rng, COLOURS[colour]).save(folder / name)
            title = f"{rng.choice(ADJECTIVES)} {SIZES[size]} {rng.choice(NOUNS)}"
            writer.writerow([name, title, LABELS[(colour + size) % 3]])
    return folder / "my.csv"


def _draw(rng: np.random.Generator, colour: tuple[int, ...]) -> Image.Image:
    """Draw a circle, square or triangle of varying colour, size and place on a noisy background."""
    image = Image.fromarray(rng.integers(60, 160, (64, 64, 3), dtype=np.uint8))
    radius, fill = int(rng.integers(14, 24)), tuple(int(np.clip(c + rng.integers(-35, 36), 0, 255)) for c in colour)
    x, y = (int(rng.integers(radius, 64 - radius)) for _ in range(2))
    draw, shape = ImageDraw.Draw(image), rng.integers(3)
    if shape == 0:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == 1:
        draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return image


def run(recipe: str, data: Path, folder: Path, seed: int, options: tuple[str, ...]) -> dict:
    """Finetune, unless this was done before, and return ``evaluation.json``, which has the scores on the test split."""
    if (folder / "evaluation.json").is_file():
        return json.loads((folder / "evaluation.json").read_text())
    words = [str(Path(sys.executable).with_name("mmf_run")), f"config={recipe}", f"{DATA}.data_dir={data}"]
    words += [f"env.save_dir={folder}", f"training.seed={seed}", *options]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"{words[1]} failed: {result.stderr[-3000:]}. Correct the error.")
    return json.loads((folder / "evaluation.json").read_text())


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="projects/flava/configs/finetune/demo_own.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("options", nargs="*", help="options of mmf_run for all runs")
    arguments = parser.parse_args(words)
    data = write(arguments.folder)
    for case, options in CASES.items():
        for seed in arguments.seeds:
            folder = arguments.folder / f"{case.replace(' ', '_')}_{seed}"
            scores = run(arguments.recipe, data, folder, seed, (*options, *arguments.options))
            print(f"{case}, seed {seed}: {scores['metrics']} on the test split", flush=True)


if __name__ == "__main__":
    sys.exit(main())
