"""Reading metrics.jsonl of killed and resumed runs, and unit tests of small functions of the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmf_flava.report import wording
from mmf_flava.report.charts import Curve, downsample, moving_average
from mmf_flava.report.confusion import read_confusion
from mmf_flava.report.run import Evaluation, Run, read_runs


def read(folder: Path, records: list[dict[str, Any]], tail: str = "") -> Run:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return read_runs([folder])[0]


def train(update: int, loss: float) -> dict[str, Any]:
    return {"update": update, "split": "train", "losses": {"flava_mim": loss}}


def val(update: int, accuracy: float) -> dict[str, Any]:
    return {"update": update, "split": "val", "zero_shot": {"accuracy": accuracy}}


def test_truncated_last_line_is_skipped(tmp_path: Path) -> None:
    run = read(tmp_path, [train(10, 3.0), train(20, 2.0)], '{"update": 30, "split": "train", "los')
    assert [record.update for record in run.train] == [10, 20]


def test_binary_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(train(10, 3.0)).encode() + b"\n\xff\xfe\x00\n")
    assert len(read_runs([tmp_path])[0].train) == 1


def test_later_records_replace_earlier_ones_after_a_resume(tmp_path: Path) -> None:
    first_run = [train(10, 9.0), train(20, 8.0), val(20, 0.2), train(30, 7.0), val(30, 0.3), train(35, 6.5)]
    resumed_run = [train(20, 5.0), val(20, 0.5), train(30, 4.0)]
    run = read(tmp_path, first_run + resumed_run)
    assert [(record.update, record.losses["flava_mim"]) for record in run.train] == [(10, 9.0), (20, 5.0), (30, 4.0)]
    validation = [(record.update, record.accuracy) for record in run.validation]
    assert validation == [(20, 0.5)], "the resumed run has not validated at update 30"


def test_repeated_validation_replaces_only_its_update(tmp_path: Path) -> None:
    run = read(tmp_path, [train(10, 1.0), val(10, 0.1), train(20, 0.9), val(20, 0.2), val(10, 0.15)])
    assert [(record.update, record.accuracy) for record in run.validation] == [(10, 0.15), (20, 0.2)]


def test_missing_files_are_listed(tmp_path: Path) -> None:
    assert read(tmp_path, [train(10, 1.0)]).missing == ("evaluation.json", "summary.json", "examples/examples.json")


def test_moving_average_keeps_both_ends() -> None:
    assert moving_average([1.0, 3.0, 5.0, 1.0], window=2) == [1.0, 3.0, 3.0, 1.0]


def test_downsampling_keeps_both_ends_and_the_mean() -> None:
    xs = [float(x) for x in range(3000)]
    curve = downsample(Curve(0, xs, xs, "trend"))
    assert len(curve.xs) <= 302 and (curve.ys[0], curve.ys[-1]) == (0.0, 2999.0) and curve.xs == curve.ys


def test_confusion() -> None:
    confusion = read_confusion(
        Evaluation("test", 1, 0.75, 8, 0.5, ["cat", "dog"], [[4, 0], [2, 2]], [], {}),
    )
    assert confusion is not None and confusion.mistakes == 2 and confusion.total == 8
    assert [(pair.true, pair.predicted, pair.count, pair.total) for pair in confusion.pairs] == [("dog", "cat", 2, 4)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.25, "4.2 s"), (59.7, "1 min 00 s"), (214, "3 min 34 s"), (7500, "2 h 05 min"), (300_000, "3 d 11 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert wording.format_duration(seconds).replace("\u00a0", " ") == words


def test_number_formats() -> None:
    assert [wording.format_loss(value) for value in (12.641, 3.0, 0.04219, 0, 1234.0)] == [
        "12.6",
        "3.00",
        "0.0422",
        "0.00",
        "1.23e+03",
    ]
    assert [wording.format_short(value) for value in (90_000, 340_000, 3_214_080)] == [
        "90,000",
        "340\u00a0K",
        "3.21\u00a0M",
    ]
    assert wording.join_words(["a", "b", "c"]) == "a, b and c" and wording.join_words(["a"]) == "a"
