"""The page shows the content of the run's files, also if files are missing or invalid."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmf_flava.errors import UserError
from mmf_flava.report import write_report
from mmf_flava.report.__main__ import main
from mmf_flava.report.charts import dash_index
from tests.report.conftest import write_metrics

MakeRun = Callable[..., Path]


def page(*run_dirs: Path) -> str:
    return write_report(list(run_dirs)).read_text(encoding="utf-8").replace("\u00a0", " ")


def update_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries), encoding="utf-8")


class Tags(HTMLParser):
    """Parser that collects ids, references and open tags."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_shows_the_content_of_the_files(run_dir: Path) -> None:
    text = page(run_dir)
    for words in ("96.4", "347 of 360 test images", "chance 10 %", "51.2", "47.4", "3 min 34 s", "359", "3,214,080"):
        assert words in text
    for title in ("Global contrastive", "Masked multimodal modeling: image", "Masked multimodal modeling: text",
                  "Image-text matching", "Masked image modeling", "Masked language modeling"):  # fmt: skip
        assert f"<h3>{title}</h3>" in text
    assert "<td>eight</td><td>one</td>" in text and "4 of 36" in text
    assert text.count('class="triple"') == 8 and text.count('class="sentence"') == 4
    assert '<span class="word incorrect"><s>object</s> sequence</span>, typically' in text
    assert 'debug <span class="word correct">ass</span>ertions' in text
    assert "not in the run folder" not in text


def test_accuracy_is_of_prompt_classification_if_the_captions_name_the_classes(run_dir: Path) -> None:
    assert "Prompt classification" not in page(run_dir)
    path = run_dir / "evaluation.json"
    zero_shot = json.loads(path.read_text())["zero_shot"]
    update_json(path, zero_shot={**zero_shot, "captions_have_classes": True})
    text = page(run_dir)
    assert "Prompt classification and retrieval" in text
    assert "Prompt classification accuracy" in text
    assert "training captions contain the class names" in text
    assert "Zero-shot accuracy" not in text


def test_long_class_names_are_rotated(run_dir: Path) -> None:
    assert 'class="matrix"' in page(run_dir)
    path = run_dir / "evaluation.json"
    zero_shot = json.loads(path.read_text())["zero_shot"]
    update_json(path, zero_shot={**zero_shot, "classes": ["automobile", *zero_shot["classes"][1:]]})
    assert 'class="matrix long"' in page(run_dir)


def test_scores_without_bad_records_state_their_number_of_samples(run_dir: Path) -> None:
    assert "Scores computed on" not in page(run_dir)
    update_json(
        run_dir / "evaluation.json", samples={"pmd": {"evaluated": 358, "bad": 2}, "broken": {"evaluated": "x"}}
    )
    text = page(run_dir)
    assert text.count("358 of 360 samples of pmd") >= 2 and "Scores computed on" in text and "broken" not in text


def test_page_is_valid_and_self_contained(run_dir: Path) -> None:
    tags = Tags(page(run_dir))
    assert not tags.open
    assert len(tags.ids) == len(set(tags.ids)), "two charts share an id"
    assert all(source.startswith(("data:", "#")) for source in tags.sources)
    assert {source[1:] for source in tags.sources if source.startswith("#")} <= set(tags.ids)
    clips = set(re.findall(r"url\(#([^)]+)\)", page(run_dir)))
    assert clips and clips <= set(tags.ids)
    assert "#fe0" not in page(run_dir), "a chart has a placeholder colour"


def test_page_is_deterministic(run_dir: Path, tmp_path: Path) -> None:
    first, second = (write_report([run_dir], tmp_path / f"{name}.html").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("file", "message", "unaffected"),
    [
        ("metrics.jsonl", "No loss curves: <code>metrics.jsonl</code> is not in the run folder.", "96.4"),
        ("evaluation.json", "No final scores: <code>evaluation.json</code> is not in the run folder.", "3 min 34 s"),
        ("summary.json", "Some facts are missing: <code>summary.json</code> is not in the run folder.", "96.4"),
        (
            "examples/examples.json",
            "No examples: <code>examples/examples.json</code> is not in the run folder.",
            "96.4",
        ),
    ],
)
def test_missing_file_is_reported(run_dir: Path, file: str, message: str, unaffected: str) -> None:
    (run_dir / file).unlink()
    text = page(run_dir)
    assert message in text and unaffected in text
    assert text.count("is not in the run folder") == 1


@pytest.mark.parametrize("file", ["metrics.jsonl", "evaluation.json", "summary.json"])
def test_one_file_is_enough(run_dir: Path, file: str) -> None:
    for other in ("metrics.jsonl", "evaluation.json", "summary.json", "examples/examples.json"):
        if other != file:
            (run_dir / other).unlink()
    assert not Tags(page(run_dir)).open


def test_last_validation_is_shown_without_final_scores(run_dir: Path) -> None:
    (run_dir / "evaluation.json").unlink()
    assert "validation at update 600" in page(run_dir)


def test_content_of_files_is_escaped(tmp_path: Path, make_run: MakeRun) -> None:
    script = "<script>alert('x')</script>"
    run = make_run(tmp_path / "<b>run", caption=script)
    update_json(run / "summary.json", device=script, datasets=[script])
    content = json.loads((run / "evaluation.json").read_text())
    content["zero_shot"] |= {"classes": [script] * 10, "templates": [script]}
    update_json(run / "evaluation.json", **content)
    metrics = (run / "metrics.jsonl").read_text().replace("flava_itm", script)
    (run / "metrics.jsonl").write_text(metrics)
    examples = (run / "examples/examples.json").read_text().replace("convenient", script).replace("object", script)
    (run / "examples/examples.json").write_text(examples)
    text = page(run)
    assert "<script" not in text and "<b>run" not in text and "&lt;script&gt;" in text


def test_values_of_the_wrong_type_are_ignored(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"update": 610, "split": "train", "losses": {"flava_itm": NaN, "flava_mim": "high"}, "lr": null}\n')
        file.write('{"update": 620, "split": "train", "losses": [1, 2], "samples_per_second": Infinity}\n')
        file.write('{"update": "x", "split": "train"}\n[1]\nnull\n{"update": 630, "split": "val", "zero_shot": 3}\n')
    update_json(
        run_dir / "evaluation.json", retrieval="none", zero_shot={"accuracy": True, "confusion": [[1, 2], ["a"]]}
    )
    update_json(run_dir / "summary.json", seconds="long", parameters=[], datasets="pmd", last_losses=None)
    (run_dir / "examples/examples.json").write_text('{"images": [3, {"original": 5}], "sentences": [{"tokens": [7]}]}')
    text = page(run_dir)
    assert not Tags(text).open and "nan" not in re.sub(r"<[^>]*>", "", text).lower().split()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", [0.0, -1e30, 1e30, 1.7e308, 5e-324, 10**400])
@pytest.mark.parametrize("update", [0, 7, 10**12])
def test_extreme_numbers_are_drawn_or_ignored(tmp_path: Path, update: int, loss: float) -> None:
    records = [
        {"update": at, "split": split, "lr": loss, "losses": {"flava_mim": value}, "zero_shot": {"accuracy": loss}}
        for split in ("train", "val")
        for at, value in ((update, loss), (update + 1, 1.0), (update + 1, 10**400))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "summary.json").write_text(json.dumps({"seconds": loss, "samples": loss, "updates": loss}))
    assert not Tags(page(tmp_path)).open


def test_a_weight_decay_that_a_schedule_changes_has_a_chart(tmp_path: Path) -> None:
    records = [{"update": n, "split": "train", "losses": {"flava_mim": 1.0}, "lr": 0.1} for n in (1, 2)]
    write_metrics(tmp_path / "constant", records)
    write_metrics(tmp_path / "scheduled", [{**record, "weight_decay": record["update"] / 10} for record in records])
    constant, scheduled = page(tmp_path / "constant"), page(tmp_path / "scheduled")
    assert "Learning rate over the updates" in constant and "Weight decay over the updates" not in constant
    assert "Weight decay over the updates" in scheduled


def test_images_outside_the_examples_folder_are_not_included(run_dir: Path) -> None:
    (run_dir / "0.png").write_bytes((run_dir / "examples/0.png").read_bytes())
    image = {"kind": "mim", "original": "../0.png", "masked": "1.png", "filled": "gone.png", "caption": None}
    update_json(run_dir / "examples/examples.json", images=[image], sentences=[])
    text = page(run_dir)
    assert text.count("data:image/png") == 1 and text.count("no file") == 2


def test_several_runs_have_common_charts_and_one_table(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", updates=300, seed=1)
    update_json(second / "evaluation.json", retrieval={"image_to_text_r1": 0.613})
    out = write_report([first, second])
    assert out == first / "comparison.html", "the report of the first run must not be overwritten"
    text = page(first, second)
    assert not Tags(text).open and len(Tags(text).ids) == len(set(Tags(text).ids))
    assert "Comparison of 2 runs" in text and "var(--run-2)" in text
    assert '<td>51.2 %</td><td class="best">61.3 %</td>' in text
    assert '<tr><th scope="row">Updates</th><td>600</td><td>300</td></tr>' in text
    assert "Equal in all runs" in text and "precision fp32" in text


def test_runs_with_equal_folder_names_get_unique_names(tmp_path: Path, make_run: MakeRun) -> None:
    text = page(make_run(tmp_path / "a/save"), make_run(tmp_path / "b/save"))
    assert "</i>a</th>" in text and "</i>b</th>" in text


def test_many_runs_and_long_runs(tmp_path: Path, make_run: MakeRun) -> None:
    runs = [make_run(tmp_path / str(index), updates=200, seed=index, images=0) for index in range(7)]
    text = page(*runs)
    assert all(f'<i class="swatch {name}"></i>' in text for name in ("run-1 dash-1", "run-2 dash-2", "run-1 dash-4"))
    assert len({(run % 6, dash_index(run)) for run in range(24)}) == 24, "two runs look the same"
    long = make_run(tmp_path / "long", updates=40_000, images=0)
    assert len(page(long)) < 400_000, "curves of 4,000 points are not downsampled"


def test_matrix_of_many_classes_is_not_shown(run_dir: Path) -> None:
    size = 41
    matrix = [[9 if row == column else int(column == row + 1) for column in range(size)] for row in range(size)]
    zero_shot = {"accuracy": 0.9, "confusion": matrix, "classes": [f"class {index}" for index in range(size)]}
    update_json(run_dir / "evaluation.json", zero_shot=zero_shot)
    text = page(run_dir)
    assert "41 classes are too many" in text and "<td>class 0</td><td>class 1</td>" in text


def test_missing_runs_raise(tmp_path: Path) -> None:
    for folders, words in (
        ([], "No run folder"),
        ([tmp_path / "gone"], "was not found"),
        ([tmp_path], "has no results"),
    ):
        with pytest.raises(UserError, match=words):
            write_report(folders)


def test_command_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert main([str(run_dir), "--out", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").is_file()
    assert main([str(run_dir), "--out", str(tmp_path)]) == 2  # a folder
    assert main([str(tmp_path / "gone")]) == 2
    error = capsys.readouterr().err
    assert "was not found" in error and "Traceback" not in error
    assert main([]) == 2


def test_command_line_does_not_import_torch_or_mmf(run_dir: Path) -> None:
    program = (
        "import sys; from mmf_flava.report.__main__ import main; code = main(sys.argv[1:]); "
        "sys.exit(code or len({'torch', 'mmf', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(run_dir)], check=False).returncode == 0
    gone = subprocess.run(
        [sys.executable, "-m", "mmf_flava.report", "gone"], capture_output=True, text=True, check=False
    )
    assert gone.returncode == 2 and gone.stderr.startswith("mmf_flava: Run folder gone was not found")


@pytest.mark.parametrize(("best", "before", "after"), [(0.75, ">37.5<", ">75.0<"), (-0.25, ">-12.5<", ">-25.0<")])
def test_finetuning_metrics_are_scores(tmp_path: Path, best: float, before: str, after: str) -> None:
    records = [
        {"update": 10, "split": "train", "losses": {"cross_entropy": 0.7}, "metrics": {}},
        {"update": 10, "split": "val", "losses": {"cross_entropy": 0.6}, "metrics": {"roc_auc": best / 2}},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    validated = page(tmp_path)
    assert before in validated and "validation at update 10" in validated
    evaluation = {"task": "hateful_memes", "split": "val", "updates": 10, "metrics": {"roc_auc": best}}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    final = page(tmp_path)
    assert after in final and "AUROC over the updates" in final and "No scores yet" not in final


def test_metric_without_updates_is_a_score(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"split": "val", "metrics": {"accuracy": 0.5}}))
    assert "Accuracy" in page(tmp_path) and ">50.0<" in page(tmp_path)
