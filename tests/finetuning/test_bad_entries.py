"""Bad entries of MMF's datasets: each costs only itself, in training, evaluation and prediction."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmf_flava.compat.mmf_api import MMF_TRAINER
from mmf_flava.errors import UserError
from tests.finetuning import toys

SIZE = 48
FEW = ("training.max_updates=6", "training.evaluation_interval=6", "training.batch_size=8")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def break_pixels(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:200] = bytes(140)
    path.write_bytes(bytes(content))


# kind -> changes of the entry (...: the key is removed; not a dict: replaces the entry), change of its image, reason
IMAGES = {
    "empty image": ({}, lambda path: path.write_bytes(b""), "not an image"),
    "text as image": ({}, lambda path: path.write_text("<html>"), "not an image"),
    "truncated image": ({}, truncate, "truncated image"),
}
MEMES = {
    **IMAGES,
    "damaged image": ({}, break_pixels, "damaged image"),
    "missing image": ({"img": "img/gone.png"}, None, "no image"),
    "image is a folder": ({"img": "img"}, None, "vanished"),
    "null image": ({"img": None}, None, "invalid entry"),
    "no image key": ({"img": ...}, None, "invalid entry"),
    "null text": ({"text": None}, None, "invalid entry"),
    "text is a number": ({"text": 5}, None, "invalid entry"),
    "no text": ({"text": ...}, None, "invalid entry"),
    "id is a word": ({"id": "a"}, None, "invalid entry"),
    "large id": ({"id": 2**31}, None, "invalid entry"),
    "no id": ({"id": ...}, None, "invalid entry"),
    "not an object": ([1], None, "invalid entry"),
    "cut line": ('{"id": 1, "te', None, "invalid entry"),
    "deep line": ("[" * 100_000, None, "invalid entry"),
    "latin-1": (b'{"id": 1, "text": "\xe9"}', None, "invalid entry"),
}
LABELS = {
    "null label": ({"label": None}, None, "no label"),
    "label is a word": ({"label": "red"}, None, "unreadable label"),
    "label is a fraction": ({"label": 0.5}, None, "unreadable label"),
    "label of 2^63": ({"label": 2**63}, None, "unreadable label"),
    "other label": ({"label": 2}, None, "unknown label"),
}
MISSING_LABEL = {"no label": ({"label": ...}, None, "does not fit the batch")}
QUESTIONS = {
    **IMAGES,
    "missing image": ({"image_name": "gone"}, None, "no image"),
    "null image": ({"image_name": None}, None, "invalid entry"),
    "null question": ({"question_str": None}, None, "invalid entry"),
    "no question": ({"question_str": ...}, None, "invalid entry"),
    "null tokens": ({"question_tokens": None}, None, "invalid entry"),
    "question_id is a word": ({"question_id": "a"}, None, "invalid entry"),
    "large question_id": ({"question_id": 2**40}, None, "invalid entry"),
    "no question_id": ({"question_id": ...}, None, "invalid entry"),
}
ANSWERS = {
    "no answers": ({"valid_answers": [], "all_answers": []}, None, "invalid entry"),
    "null answers": ({"valid_answers": None}, None, "invalid entry"),
    "answer is a number": ({"valid_answers": [7] * 10}, None, "invalid entry"),
    "missing answers": ({"valid_answers": ..., "all_answers": ...}, None, "does not fit the batch"),
}


def place(kind: int) -> int:
    """Return the index of the entry that gets the mistake of this number."""
    return 2 * kind + 1


def spoil(rows: list[dict], kinds: dict, image: Callable[[dict], Path]) -> None:
    """Apply one mistake to each second entry."""
    for number, (changes, change_image, _) in enumerate(kinds.values()):
        row = rows[place(number)]
        if change_image is not None:
            noise = np.random.default_rng(number).integers(0, 255, (36, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(image(row))
            change_image(image(row))
        if isinstance(changes, dict):
            merged = {**row, **changes}
            rows[place(number)] = {key: value for key, value in merged.items() if value is not ...}
        else:
            rows[place(number)] = changes


def write_memes(folder: Path, kinds: dict[str, dict]) -> Path:
    """Write memes in ``env.data_dir`` with one mistake of each kind; split -> kinds."""
    toys.write_tokenizer(folder / "flava_demo" / "tokenizer")
    toys.write_hateful_memes(folder, {"train": SIZE, "dev": SIZE, "test": SIZE})
    root = folder / "datasets" / "hateful_memes" / "defaults"
    for split, mistakes in kinds.items():
        rows = [json.loads(line) for line in (root / "annotations" / f"{split}.jsonl").read_text().splitlines()]
        spoil(rows, mistakes, lambda row: root / "images" / row["img"])
        lines = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else None for row in rows]
        content = b"".join(
            (json.dumps(row).encode() if line is None else line) + b"\n" for row, line in zip(rows, lines, strict=True)
        )
        for name in (split, f"{split}_unseen"):
            (root / "annotations" / f"{name}.jsonl").write_bytes(content)
    return folder


def write_questions(folder: Path) -> Path:
    """Write questions in ``env.data_dir`` with one mistake of each kind in each split."""
    toys.write_tokenizer(folder / "flava_demo" / "tokenizer")
    toys.write_vqa2(folder, {"train2014": SIZE, "val2014": SIZE, "test2015": SIZE})
    images = folder / "datasets" / "coco" / "defaults" / "images"
    for split in ("train2014", "val2014", "test2015"):
        path = folder / "datasets" / "vqa2" / "defaults" / "annotations" / f"imdb_{split}.npy"
        header, *rows = np.load(path, allow_pickle=True).tolist()
        kinds = QUESTIONS if split == "test2015" else {**QUESTIONS, **ANSWERS}
        spoil(rows, kinds, lambda row, split=split: images / split / f"{row['image_name']}.jpg")
        np.save(path, np.array([header, *rows], dtype=object), allow_pickle=True)
    return folder


def reasons(kinds: dict) -> Counter:
    return Counter(reason for _, _, reason in kinds.values())


def read_quarantine(run: Path, split: str) -> Counter:
    """Return the number of listed entries per reason; all are listed once, at the places of the mistakes."""
    entries = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert all(entry.keys() == {"dataset", "split", "sample_id", "record", "reason", "message"} for entry in entries)
    entries = [entry for entry in entries if entry["split"] == split]
    assert sorted(entry["record"] for entry in entries) == [place(number) for number in range(len(entries))]
    return Counter(entry["reason"] for entry in entries)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_memes(finetune, tmp_path, monkeypatch, workers):
    labelled = {**MEMES, **LABELS}
    data = write_memes(tmp_path, {"train": {**MEMES, **MISSING_LABEL}, "dev": labelled, "test": MEMES})
    options = (f"env.data_dir={data}", *FEW, f"training.num_workers={workers}")
    run = finetune("demo_hateful_memes", tmp_path / "run", *options)
    assert read_quarantine(run, "train") == reasons({**MEMES, **MISSING_LABEL})
    assert read_quarantine(run, "val") == reasons(labelled)
    good = SIZE - len(labelled)
    evaluation, log = json.loads((run / "evaluation.json").read_text()), (run / "train.log").read_text()
    assert evaluation["samples"] == {"hateful_memes": {"evaluated": good, "bad": len(labelled)}}
    assert f" on {good} of {SIZE} samples of hateful_memes" in log
    validated = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert (validated["split"], validated["samples"]) == ("val", evaluation["samples"])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["bad_records"]["hateful_memes"]["unreadable label"] == 3

    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path / "reports"))
    finetune("demo_hateful_memes", run, *options, "run_type=test", "checkpoint.resume=true", predict=True)
    (file,) = (tmp_path / "reports").glob("hateful_memes_*.csv")
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == SIZE and list(rows[0]) == ["id", "proba", "label", "error"]
    first, ids = 1001 + 2 * SIZE, {"id is a word": "a", "large id": str(2**31)}
    without = ("no id", "not an object", "cut line", "deep line", "latin-1")
    bad = {place(number): kind for number, kind in enumerate(MEMES)}
    for number, row in enumerate(rows):
        kind = bad.get(number)
        expected = "" if kind in without else ids.get(kind, str(first + number))
        assert row["id"] == expected
        assert (row["proba"] == row["label"] == "") == bool(row["error"]) == (kind is not None)
        assert kind is None or row["error"].startswith(f"{MEMES[kind][2]}: dataset_config.hateful_memes: entry ")


def test_bad_questions(finetune, tmp_path, monkeypatch):
    data, kinds = write_questions(tmp_path), {**QUESTIONS, **ANSWERS}
    options = (f"env.data_dir={data}", *FEW, "model_config.flava_classification.image_encoder.image_size=24")
    run = finetune("demo_vqa2", tmp_path / "run", *options)
    for split in ("train", "val"):
        assert read_quarantine(run, split) == reasons(kinds)
    counts = {"evaluated": SIZE - len(kinds), "bad": len(kinds)}
    assert json.loads((run / "evaluation.json").read_text())["samples"] == {"vqa2": counts}

    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path / "reports"))
    finetune("demo_vqa2", run, *options, "run_type=test", "checkpoint.resume=true", predict=True)
    (file,) = (tmp_path / "reports").glob("vqa2_*.json")
    rows, bad = json.loads(file.read_text()), {place(number): kind for number, kind in enumerate(QUESTIONS)}
    ids = {"question_id is a word": "a", "large question_id": 2**40, "no question_id": None}
    first = 10 * (3001 + 2 * SIZE)
    assert [row["question_id"] for row in rows] == [ids.get(bad.get(n), first + 10 * n) for n in range(SIZE)]
    assert [n for n, row in enumerate(rows) if row["answer"] is None] == sorted(bad)
    assert {n: row["error"].partition(":")[0] for n, row in enumerate(rows) if row["error"]} == {
        n: QUESTIONS[kind][2] for n, kind in bad.items()
    }


def test_scores_are_those_of_the_good_entries(finetune, tmp_path):
    """Loss and metrics equal those of a file without the bad entries."""
    data = write_memes(tmp_path, {"dev": {**MEMES, **LABELS}})
    run = finetune("demo_hateful_memes", tmp_path / "run", f"env.data_dir={data}", *FEW)
    scores = json.loads((run / "evaluation.json").read_text())
    annotations = data / "datasets" / "hateful_memes" / "defaults" / "annotations"
    bad = {place(number) for number in range(len(MEMES) + len(LABELS))}
    for name in ("dev", "dev_unseen"):
        lines = (annotations / f"{name}.jsonl").read_bytes().splitlines()
        kept = [line for number, line in enumerate(lines) if number not in bad]
        (annotations / f"{name}.jsonl").write_bytes(b"\n".join(kept))
    options = (f"env.data_dir={data}", *FEW, "run_type=val", "checkpoint.resume=true", "checkpoint.resume_best=true")
    finetune("demo_hateful_memes", run, *options)
    clean = json.loads((run / "evaluation.json").read_text())
    assert "samples" in scores and "samples" not in clean
    assert scores["metrics"] == pytest.approx(clean["metrics"], abs=1e-6)
    assert scores["losses"] == pytest.approx(clean["losses"], abs=1e-5)


def test_bad_memes_with_mmfs_trainer(finetune, tmp_path, monkeypatch):
    data = write_memes(tmp_path, {"train": MEMES, "dev": MEMES, "test": MEMES})
    options = (f"env.data_dir={data}", *FEW, f"training.trainer={MMF_TRAINER}", "training.checkpoint_interval=6")
    run = finetune("demo_hateful_memes", tmp_path / "run", *options)
    for split in ("train", "val"):
        assert read_quarantine(run, split) == reasons(MEMES)
    log = (run / "train.log").read_text()
    assert f"hateful_memes, val split: scores on {SIZE - len(MEMES)} of {SIZE} samples." in log
    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path / "reports"))
    finetune("demo_hateful_memes", run, *options, "run_type=test", "checkpoint.resume=true", predict=True)
    (file,) = (tmp_path / "reports").glob("hateful_memes_*.csv")
    assert [bool(row["error"]) for row in csv.DictReader(file.open())] == [
        number % 2 == 1 and number < place(len(MEMES)) for number in range(SIZE)
    ]


def test_predictions_of_the_val_split_are_in_file_order(finetune, tmp_path, monkeypatch):
    data = write_memes(tmp_path, {"dev": {"null text": MEMES["null text"]}})
    monkeypatch.setenv("MMF_REPORT_DIR", str(tmp_path / "reports"))
    finetune("demo_hateful_memes", tmp_path / "run", f"env.data_dir={data}", *FEW, "run_type=val", predict=True)
    (file,) = (tmp_path / "reports").glob("hateful_memes_*.csv")
    rows = list(csv.DictReader(file.open()))
    assert [int(row["id"]) for row in rows] == [1001 + SIZE + number for number in range(SIZE)]
    assert [number for number, row in enumerate(rows) if row["error"]] == [1]


def test_fraction_of_bad_entries_is_limited(finetune, tmp_path):
    data = write_memes(tmp_path, {"train": {"null text": MEMES["null text"]}})
    options = (f"env.data_dir={data}", "training.max_updates=25", "training.batch_size=48")
    limit = "dataset_config.hateful_memes.max_bad_share"
    with pytest.raises(UserError, match=rf"2. of 1\d\d\d training samples .*{limit} allows a fraction of 0\.01"):
        finetune("demo_hateful_memes", tmp_path / "run", *options)
    assert finetune("demo_hateful_memes", tmp_path / "more", *options, f"{limit}=0.03").is_dir()
    with pytest.raises(UserError, match=rf"{limit}: must be at least 0 and at most 1"):
        finetune("demo_hateful_memes", tmp_path / "more", *options, f"{limit}=3")
