"""Scores on frozen features, entropies of the outputs, the sentence about a collapse, and attention maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmf_flava.report.collapse import describe_collapse
from tests.report.conftest import write_metrics
from tests.report.test_report_page import Tags, page

KNN = {"accuracy": 0.75, "count": 1000, "k": 20}


def outputs(information: float) -> dict[str, float]:
    return {"teacher_entropy": 5.5, "teacher_mean_entropy": 5.5 + information, "teacher_information": information}


def write_run(folder: Path, information: float = 1.5, maps: int = 2) -> Path:
    records = []
    for update in (10, 20):
        loss = {"losses": {"flava_dino": 7.0 - update / 10}}
        records.append({"update": update, "split": "train", **loss, "outputs": outputs(information * update / 20)})
        records.append({"update": update, "split": "val", **loss, "knn": {"accuracy": update / 40, "count": 500}})
    write_metrics(folder, records)
    summary = {"model": "flava_dino", "updates": 20, "seconds": 3.0, "samples": 640, "datasets": ["imagenet"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    evaluation = {"split": "test", "update": 20, "knn": KNN, "linear_probe": {"accuracy": 0.8125, "count": 1000}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    examples = folder / "examples"
    examples.mkdir()
    entries = []
    for number in range(maps):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(examples / f"{number}.png")
        for name in ("mean", "a", "b", "c"):
            Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(examples / f"{number}_{name}.png")
        heads = [f"{number}_{name}.png" for name in "abc"]
        entries.append({"id": f"s{number}", "image": f"{number}.png", "mean": f"{number}_mean.png", "heads": heads})
    (examples / "attention.json").write_text(json.dumps({"images": entries}))
    return folder


def test_page_of_a_run_without_captions(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "dino"))
    for words in ("<h2>Image features</h2>", "Self-distillation", "k-NN accuracy", "75.0<small>", "1,000 test images",
                  "Linear probe accuracy", "81.2<small>", "Entropy of the teacher", "Information in the teacher",
                  "mean of 3 heads"):  # fmt: skip
        assert words in text
    assert text.count('class="triple attention"') == 2 and text.count("<img") == 2 * 5
    for words in ("Zero-shot", "Masked modeling examples", "not in the run folder", "collapsed"):
        assert words not in text
    tags = Tags(text)
    assert not tags.open and len(tags.ids) == len(set(tags.ids))


def test_collapse_of_the_last_update_is_stated(tmp_path: Path) -> None:
    text = page(write_run(tmp_path / "a", 0.002), write_run(tmp_path / "b"))
    assert "a: The teacher&#39;s output hardly depends on the image: its information is 0.0020 nats." in text
    assert "b: The teacher" not in text


def test_runs_are_compared_by_their_scores(tmp_path: Path) -> None:
    other = write_run(tmp_path / "b")
    (other / "evaluation.json").write_text(json.dumps({"split": "test", "knn": {**KNN, "accuracy": 0.5}}))
    text = page(write_run(tmp_path / "a"), other)
    assert '<th scope="row">k-NN accuracy</th><td class="best">75.0 %</td><td>50.0 %</td>' in text
    assert '<th scope="row">Linear probe accuracy</th><td>81.2 %</td>' in text


def test_run_with_captions_has_no_section_of_features(run_dir: Path) -> None:
    text = page(run_dir)
    assert "Image features" not in text and "Masked modeling examples" in text


@pytest.mark.parametrize("content", ['{"images": 3}', '{"images": [{"image": "../x.png", "heads": 4}]}', "[", "{}"])
def test_invalid_attention_maps_are_ignored(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path / "dino")
    (folder / "examples" / "attention.json").write_text(content)
    assert "triple attention" not in page(folder)


def test_collapse_is_known_from_the_information() -> None:
    assert describe_collapse({}) is None and describe_collapse(outputs(0.5)) is None
    sentence = describe_collapse(outputs(0.0))
    assert sentence is not None and "The model has collapsed, or has not trained long enough." in sentence
