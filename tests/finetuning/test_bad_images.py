"""Bad images of the dataset ``image_classification``: training replaces them, evaluations leave them out."""

import json
import shutil

import pytest
from PIL import Image

SHORT = ("training.max_updates=2", "training.evaluation_interval=2", "dataset_config.image_classification.build=null")


def write_images(folder, bad):
    """Write 12 images in two classes, and as many files that are not images as ``bad``."""
    for split in ("train", "test"):
        for number in range(12 + bad):
            path = folder / split / ("dark", "light")[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if number >= 12:
                path.write_bytes(b"<html>")
            else:
                Image.new("RGB", (28, 28), (20 * number, 200 * (number % 2), 30)).save(path)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_scores_are_those_without_the_bad_images(finetune, tmp_path, batch_size):
    """A model that was trained once is evaluated with and without bad images."""
    section = "dataset_config.image_classification"
    splits = f"{section}.splits={{train: train, val: test, test: test}}"
    write_images(tmp_path / "data", bad=3)
    data = f"{section}.data_dir={tmp_path / 'data'}"
    size = f"training.batch_size={batch_size}"
    run = finetune("demo_imagenet", tmp_path / "run", *SHORT, splits, data, size)
    final = json.loads((run / "evaluation.json").read_text())
    assert final["samples"] == {"image_classification": {"evaluated": 12, "bad": 3}}
    reasons = json.loads((run / "summary.json").read_text())["bad_records"]["image_classification"]
    assert set(reasons) == {"not an image"} and 3 <= reasons["not an image"] <= 6
    assert (run / "quarantine.jsonl").read_text().count('"split": "val"') == 3
    shutil.rmtree(tmp_path / "data")
    write_images(tmp_path / "data", bad=0)
    resume = f"checkpoint.resume_file={run}"
    clean = finetune("demo_imagenet", tmp_path / "clean", *SHORT, splits, data, size, resume, "run_type=val")
    without = json.loads((clean / "evaluation.json").read_text())
    assert "samples" not in without
    assert final["metrics"] == pytest.approx(without["metrics"])
    assert final["losses"] == pytest.approx(without["losses"], rel=1e-5)
