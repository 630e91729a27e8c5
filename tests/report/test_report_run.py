"""Reading metrics.jsonl as killed and resumed runs leave it; small functions with numbers one can check by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmf_flava.report import wording
from mmf_flava.report.charts import Curve, moving_mean, thinned
from mmf_flava.report.confusion import read_confusion
from mmf_flava.report.run import Evaluation, Run, read_runs


def read(folder: Path, lines: list[dict[str, Any]], tail: str = "") -> Run:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return read_runs([folder])[0]


def train(update: int, loss: float) -> dict[str, Any]:
    return {"update": update, "split": "train", "losses": {"flava_mim": loss}}


def val(update: int, accuracy: float) -> dict[str, Any]:
    return {"update": update, "split": "val", "zero_shot": {"accuracy": accuracy}}


def test_truncated_last_line_is_passed_over(tmp_path: Path) -> None:
    run = read(tmp_path, [train(10, 3.0), train(20, 2.0)], '{"update": 30, "split": "train", "los')
    assert [line.update for line in run.train] == [10, 20]


def test_bytes_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(train(10, 3.0)).encode() + b"\n\xff\xfe\x00\n")
    assert len(read_runs([tmp_path])[0].train) == 1


def test_later_line_wins_after_a_resume(tmp_path: Path) -> None:
    first_life = [train(10, 9.0), train(20, 8.0), val(20, 0.2), train(30, 7.0), val(30, 0.3), train(35, 6.5)]
    second_life = [train(20, 5.0), val(20, 0.5), train(30, 4.0)]
    run = read(tmp_path, first_life + second_life)
    assert [(line.update, line.losses["flava_mim"]) for line in run.train] == [(10, 9.0), (20, 5.0), (30, 4.0)]
    assert [(line.update, line.accuracy) for line in run.validation] == [(20, 0.5)], "30 has not been reached again"


def test_repeated_validation_replaces_only_itself(tmp_path: Path) -> None:
    run = read(tmp_path, [train(10, 1.0), val(10, 0.1), train(20, 0.9), val(20, 0.2), val(10, 0.15)])
    assert [(line.update, line.accuracy) for line in run.validation] == [(10, 0.15), (20, 0.2)]


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert read(tmp_path, [train(10, 1.0)]).missing == ("evaluation.json", "summary.json", "examples/examples.json")


def test_moving_mean_keeps_both_ends() -> None:
    assert moving_mean([1.0, 3.0, 5.0, 1.0], window=2) == [1.0, 3.0, 3.0, 1.0]


def test_thinning_keeps_both_ends_and_the_mean() -> None:
    xs = [float(x) for x in range(3000)]
    curve = thinned(Curve(0, xs, xs, "trend"))
    assert len(curve.xs) <= 302 and (curve.ys[0], curve.ys[-1]) == (0.0, 2999.0) and curve.xs == curve.ys


def test_confusion() -> None:
    confusion = read_confusion(
        Evaluation("test", 1, 0.75, 8, 0.5, ["cat", "dog"], [[4, 0], [2, 2]], [], {}),
    )
    assert confusion is not None and confusion.mistakes == 2 and confusion.total == 8
    assert [(pair.true, pair.read_as, pair.count, pair.of) for pair in confusion.pairs] == [("dog", "cat", 2, 4)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.25, "4.2 s"), (59.7, "1 min 00 s"), (214, "3 min 34 s"), (7500, "2 h 05 min"), (300_000, "3 d 11 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert wording.duration(seconds).replace("\u00a0", " ") == words


def test_figures() -> None:
    figures = [wording.loss(12.641), wording.loss(3.0), wording.loss(0.04219), wording.loss(0), wording.loss(1234.0)]
    assert figures == ["12.6", "3.00", "0.0422", "0.00", "1.23e+03"]
    assert [wording.short(value) for value in (90_000, 340_000, 3_214_080)] == ["90,000", "340\u00a0K", "3.21\u00a0M"]
    assert wording.listing(["a", "b", "c"]) == "a, b and c" and wording.listing(["a"]) == "a"
