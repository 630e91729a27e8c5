"""Toy datasets in the formats of MMF's builders, with images that determine the labels."""

import json
from collections.abc import Sequence
from pathlib import Path

import mmf
import numpy as np
import yaml
from mmf.utils.download import mark_done
from PIL import Image

ZOO = Path(mmf.__file__).parent / "configs" / "zoo" / "datasets.yaml"

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
PLACES = ("left", "right")
WORDS = [*COLOURS, *PLACES, "a", "square", "at", "the", "what", "colour", "is", "it", "where", "picture", "of", "black"]
ANSWERS = ["<unk>", *COLOURS, *PLACES, "yes", "no"]


def write_tokenizer(folder: Path) -> None:
    """Write a WordPiece vocabulary of the words of the toy datasets."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")


def draw(rng: np.random.Generator, path: Path, colour: str, place: str) -> None:
    """Write an image of a coloured square in one half of a noisy dark background."""
    pixels = rng.integers(0, 60, (36, 48, 3), dtype=np.uint8)
    left = 4 if place == "left" else 28
    pixels[10:26, left : left + 16] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def choose(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[rng.integers(len(names))]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def mark_downloaded(folder: Path, name: str, *attributes: str) -> None:
    """Mark resources of a dataset as downloaded, so that MMF does not download them."""
    version = yaml.safe_load(ZOO.read_text())[name]["defaults"]["version"]
    root = folder / "datasets" / name / "defaults"
    for place in (root, *(root / attribute for attribute in attributes)):
        place.mkdir(parents=True, exist_ok=True)
        mark_done(str(place), version)


def write_hateful_memes(folder: Path, sizes: dict[str, int]) -> None:
    """Write memes; every second one is hateful: its text and image have different colours. test has no labels."""
    rng = np.random.default_rng(0)
    root = folder / "datasets" / "hateful_memes" / "defaults"
    number = 1000
    for split, size in sizes.items():
        rows = []
        for n in range(size):
            number += 1
            shown, label = choose(rng, ("red", "blue")), n % 2
            named = shown if label == 0 else {"red": "blue", "blue": "red"}[shown]
            row = {"id": number, "img": f"img/{number:05}.png", "label": label, "text": f"a {named} square"}
            draw(rng, root / "images" / row["img"], shown, choose(rng, PLACES))
            if split == "test":
                del row["label"]
            rows.append(row)
        for name in (split, f"{split}_unseen"):  # the second is for MMF's main branch
            write_lines(root / "annotations" / f"{name}.jsonl", rows)
    mark_downloaded(folder, "hateful_memes", "images", "annotations")


def write_visual_entailment(folder: Path, sizes: dict[str, int]) -> None:
    """Write sentences with the square's colour (entailment), another one (contradiction) or none (neutral)."""
    rng = np.random.default_rng(1)
    root = folder / "datasets" / "visual_entailment" / "defaults"
    images = folder / "datasets" / "flickr30k" / "defaults" / "images" / "flickr30k_images"
    number = 2000
    for split, size in sizes.items():
        rows = []
        for n in range(size):
            number += 1
            colour, place = choose(rng, ("red", "blue")), choose(rng, PLACES)
            label = ("entailment", "neutral", "contradiction")[n % 3]
            other = "blue" if colour == "red" else "red"
            sentence = {
                "entailment": f"a {colour} square",
                "neutral": "what is the black picture of",
                "contradiction": f"a {other} square",
            }[label]
            rows.append(
                {
                    "annotator_labels": [label] * 5,
                    "captionID": f"{number}.jpg#2",
                    "gold_label": label,
                    "pairID": f"{number}.jpg#2r1e",
                    "sentence1": "a picture",
                    "sentence2": sentence,
                    "Flikr30kID": f"{number}.jpg",
                }
            )
            draw(rng, images / f"{number}.jpg", colour, place)
        write_lines(root / "annotations" / f"snli_ve_{split}.jsonl", rows)
    mark_downloaded(folder, "visual_entailment", "annotations")
    mark_downloaded(folder, "flickr30k", "images", "annotations")


def write_vqa2(folder: Path, sizes: dict[str, int]) -> None:
    """Write questions about the square's colour or place, whose answers require the question and the image."""
    rng = np.random.default_rng(2)
    root = folder / "datasets" / "vqa2" / "defaults"
    images = folder / "datasets" / "coco" / "defaults" / "images"
    number = 3000
    for split, size in sizes.items():
        rows = [
            {"dataset_name": "vqa", "version": 1, "has_answer": split != "test2015"}
        ]  # an imdb starts with a header
        for n in range(size):
            number += 1
            colour, place = choose(rng, list(COLOURS)), choose(rng, PLACES)
            question, answer = (("what colour is it", colour), ("where is it", place))[n % 2]
            name = f"COCO_{split}_{number:012}"
            row = {
                "image_name": name,
                "image_id": number,
                "question_id": 10 * number,
                "feature_path": f"{name}.npy",
                "question_str": f"{question}?",
                "question_tokens": question.split(),
            }
            if split != "test2015":
                row |= {"all_answers": [answer] * 9 + ["no"], "valid_answers": [answer] * 9 + ["no"]}
            rows.append(row)
            draw(rng, images / split / f"{name}.jpg", colour, place)
        path = root / "annotations" / f"imdb_{split}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(rows, dtype=object), allow_pickle=True)
    vocabulary = root / "extras" / "vocabs" / "answers_vqa.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(ANSWERS) + "\n")
    mark_downloaded(folder, "vqa2", "annotations", "extras")
    mark_downloaded(folder, "coco", "images", "annotations")
