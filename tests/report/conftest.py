"""Fixtures for toy run folders with realistic curves, examples and mistakes, based on scikit-learn's digits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LOSSES = {  # first and last value
    "flava_global_contrastive": (4.85, 0.62),
    "flava_mmm_image": (5.6, 2.1),
    "flava_mmm_text": (7.4, 0.55),
    "flava_itm": (0.71, 0.09),
    "flava_mim": (5.7, 2.4),
    "flava_mlm": (7.6, 3.9),
}
SENTENCES = [
    ("mlm", "the [assert] statement is a convenient way to insert debug [ass] ##ertions [into:to] a program ."),
    ("mlm", "a list is a [mutable] ##s [sequence:object] , typically used to [store] collections of items ."),
    ("mmm", "a [bold] hand ##writ ##ten [three:five] , leaning a [little] to the right"),
    ("mmm", "a [scan] of the digit [seven] with a [thin:bold] stroke"),
]


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def curves(updates: int, seed: int = 0, speed: float = 1.0) -> list[dict[str, Any]]:
    """Return records of metrics.jsonl: training every 10 updates, validation every 100."""
    rng = np.random.default_rng(seed)
    records: list[dict[str, Any]] = []
    for update in range(10, updates + 1, 10):
        progress = update / updates
        decay = np.exp(-5 * speed * progress)
        losses = {
            name: round(float(last + (first - last) * decay + rng.normal(0, 0.05) * (last + 0.4)), 4)
            for name, (first, last) in LOSSES.items()
            if rng.random() > 0.05
        }
        lr = 0.001 * min(progress / 0.1, 0.5 * (1 + np.cos(np.pi * progress)))
        records.append(
            {"update": update, "split": "train", "time": update * 0.357, "lr": float(lr), "losses": losses,
             "samples_per_second": float(rng.normal(360, 9)), "data_wait": float(rng.uniform(0.01, 0.05))}
        )  # fmt: skip
        if update % 100 == 0 or update == updates:
            skill = 1 - np.exp(-6 * speed * progress)
            retrieval = {f"{direction}_r{depth}": round(float(min(1, top * skill)), 4)
                         for direction in ("image_to_text", "text_to_image")
                         for depth, top in ((1, 0.52), (5, 0.83), (10, 0.93))}  # fmt: skip
            records.append(
                {"update": update, "split": "val", "losses": {name: last * 1.1 + (first - last) * float(decay) for
                 name, (first, last) in LOSSES.items()}, "retrieval": retrieval,
                 "zero_shot": {"accuracy": round(float(0.1 + 0.86 * skill), 4), "count": 137}}
            )  # fmt: skip
    return records


def evaluation(updates: int) -> dict[str, Any]:
    confusion = np.diag([36, 34, 35, 33, 36, 36, 36, 35, 31, 35])
    for true, predicted, count in (
        (1, 8, 2),
        (3, 8, 1),
        (3, 5, 2),
        (8, 1, 4),
        (8, 9, 1),
        (9, 3, 1),
        (7, 9, 1),
        (2, 3, 1),
    ):
        confusion[true, predicted] = count
    return {
        "split": "test",
        "update": updates,
        "zero_shot": {
            "accuracy": float(np.trace(confusion) / confusion.sum()), "count": int(confusion.sum()), "chance": 0.1,
            "classes": CLASSES, "confusion": confusion.tolist(),
            "templates": ["a scan of the digit {}", "a hand-written {}", "the number {} in pencil"],
        },
        "retrieval": {"image_to_text_r1": 0.512, "image_to_text_r5": 0.838, "image_to_text_r10": 0.921,
                      "text_to_image_r1": 0.474, "text_to_image_r5": 0.806, "text_to_image_r10": 0.904,
                      "images": 360, "captions": 512},
    }  # fmt: skip


def summary(updates: int) -> dict[str, Any]:
    return {
        "model": "flava", "parameters": 3_214_080, "updates": updates, "seconds": 214.0, "samples": updates * 128,
        "batch_size": 128, "datasets": ["pmd", "imagenet", "ccnews_bookcorpus"], "device": "cpu", "precision": "fp32",
        "first_losses": {name: first for name, (first, _) in LOSSES.items()},
        "last_losses": {name: last for name, (_, last) in LOSSES.items()}, "version": "0.1.0",
    }  # fmt: skip


def write_examples(folder: Path, caption: str, count: int) -> None:
    """Write 24 x 24 digits with masked 4 x 4 patches, and SENTENCES, whose notation is [truth] or [truth:guess]."""
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    rng = np.random.default_rng(3)
    images = []
    for index in range(count):
        original = np.kron(digits.images[index * 7 + 3] * 255 / 16, np.ones((3, 3)))
        masked = np.kron(rng.random((6, 6)) < 0.4, np.ones((4, 4))).astype(bool)
        filled = np.where(masked, np.clip(original * 0.8 + rng.normal(20, 25, original.shape), 0, 255), original)
        for suffix, pixels in (("", original), ("_masked", np.where(masked, 128, original)), ("_filled", filled)):
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}{suffix}.png")
        paired = index % 2 == 1
        images.append(
            {"id": f"digit-{index}", "kind": "mmm" if paired else "mim", "original": f"{index}.png",
             "masked": f"{index}_masked.png", "filled": f"{index}_filled.png", "caption": caption if paired else None}
        )  # fmt: skip
    sentences = []
    for index, (kind, words) in enumerate(SENTENCES):
        tokens: list[dict[str, Any]] = []
        for word in words.split():
            if word.startswith("["):
                truth, _, guess = word.strip("[]").partition(":")
                tokens.append({"text": truth, "masked": True, "guess": guess or truth, "right": not guess})
            else:
                tokens.append({"text": word, "masked": False})
        sentences.append(
            {"id": str(index), "kind": kind, "image": f"{index}.png" if kind == "mmm" else None, "tokens": tokens}
        )
    content = {"images": images, "sentences": sentences}
    (folder / "examples.json").write_text(json.dumps(content), encoding="utf-8")


def build_run(
    folder: Path,
    updates: int = 600,
    seed: int = 0,
    speed: float = 1.0,
    images: int = 8,
    caption: str = "a bold three, leaning to the right",
) -> Path:
    """Create a finished run with all of its files; a higher ``speed`` gives faster convergence."""
    write_metrics(folder, curves(updates, seed, speed))
    (folder / "evaluation.json").write_text(json.dumps(evaluation(updates)), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary(updates)), encoding="utf-8")
    write_examples(folder / "examples", caption, images)
    return folder


@pytest.fixture
def make_run() -> Callable[..., Path]:
    return build_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return build_run(tmp_path / "digits")
