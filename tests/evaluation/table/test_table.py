"""Run folders in, the paper's layout out."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.__main__ import main
from mmf_flava.evaluation.table.layout import csv_text, json_text, markdown, render, table
from mmf_flava.evaluation.table.paper import rows
from mmf_flava.evaluation.table.results import Column, columns, task_name

RECIPES = Path(__file__).parents[3] / "projects/flava/configs"
RECALL = {"image_to_text_r1": 0.1, "image_to_text_r5": 0.2, "text_to_image_r1": 0.3, "text_to_image_r5": 0.4}


def values(*folders):
    return {name: cell.value for name, cell in Column("ours", folders).cells().items()}


def lines(text):
    return {line["task"]: line for line in csv.DictReader(text.splitlines())}


def everything(run):
    """A run of every task: 0.5 for NLP, 0.6 for vision, 0.7 for the rest."""
    folders = []
    for row in rows():
        task = "".join(row.tasks[0]) if row.tasks else None
        share = {"NLP": 0.5, "vision": 0.6}.get(row.part, 0.7)
        name = f"{task}_{row.section}"
        if task and not any(folder.name == name for folder in folders):
            figures = RECALL if row.section == "retrieval" else row.figures
            folders.append(run(task, name, **{row.section: dict.fromkeys(figures, share)}))
    return folders


def test_a_row_is_the_mean_of_its_figures(run):
    folder = run("mrpc", metrics={"accuracy": 0.8, "f1": 0.9, "loss": 3.0})
    assert values(folder) == {"MRPC": pytest.approx(85)}


def test_a_task_gives_all_of_its_rows(run):
    assert values(run("coco", retrieval={"images": 5000, **RECALL})) == pytest.approx(
        {"COCO TR@1": 10, "COCO TR@5": 20, "COCO IR@1": 30, "COCO IR@5": 40}
    )
    found = values(run("imagenet", zero_shot={"accuracy": 0.5}, linear_probe={"accuracy": 0.75}))
    assert found == {"ImageNet": 75, "ImageNet zero-shot": 50}


def test_a_negative_correlation_is_a_figure(run):
    assert values(run("cola", metrics={"matthews": -0.25})) == {"CoLA": -25}


@pytest.mark.parametrize("spelling", ["sst2", "SST-2", "sst_2"])
def test_spellings_of_a_task(run, spelling):
    assert values(run(spelling, metrics={"accuracy": 0.9})) == {"SST-2": 90}


def test_mnli_is_the_mean_of_both_halves(run):
    matched = run("mnli_matched", metrics={"accuracy": 0.8})
    column = Column("ours", [matched])
    assert column.cells() == {}
    assert column.left_out == [f"MNLI needs mnli_mismatched beside {matched}."]
    mismatched = run("mnli_mismatched", metrics={"accuracy": 0.9})
    assert values(matched, mismatched) == {"MNLI": pytest.approx(85)}
    with pytest.raises(UserError, match=r"mnli and .*mnli_matched both give MNLI"):
        values(matched, mismatched, run("mnli", metrics={"accuracy": 0.7}))


def test_averages_where_all_rows_were_run(run):
    found = values(*everything(run))
    assert len(found) == len(rows())
    assert found["NLP average"] == pytest.approx(50)
    assert found["Vision average"] == pytest.approx(60)
    assert found["Multimodal average"] == pytest.approx(70)
    assert found["Macro average"] == pytest.approx(60)


def test_no_average_where_a_row_is_missing(run):
    folders = [folder for folder in everything(run) if folder.name != "rte_metrics"]
    found = values(*folders)
    assert {row.name for row in rows()} - found.keys() == {
        "RTE",
        "NLP average",
        "Macro average",
        "Macro average (NLP, vision)",
    }
    text = lines(csv_text(table([Column("ours", folders)])))
    assert text["RTE"]["ours"] == text["NLP average"]["ours"] == text["Macro average"]["ours"] == "not run"
    assert text["Vision average"]["ours"] == "60.00"


def test_two_runs_of_a_row_are_refused_or_stand_side_by_side(run):
    first, second = (run("rte", name, metrics={"accuracy": share}) for name, share in (("a", 0.5), ("b", 0.6)))
    with pytest.raises(UserError, match=rf"{first} and {second} both give metrics of rte.*A={first} B={second}"):
        columns([str(first), str(second)])
    text = lines(csv_text(table(columns([str(first), f"large={second}"]))))
    assert (text["RTE"]["ours"], text["RTE"]["large"], text["RTE"]["FLAVA"]) == ("50.00", "60.00", "57.76")
    assert len(columns([str(first), str(first)])) == 1


def test_the_recipes_tasks_are_rows():
    said = {}
    for path in RECIPES.rglob("*.yaml"):
        task = (yaml.safe_load(path.read_text()).get("evaluation") or {}).get("task")
        if task is not None and "$" not in task and not path.name.startswith("demo_"):
            said[path] = task
    assert len(said) > 20
    assert {path: task_name(task, path) for path, task in said.items()} == said


def test_every_vision_row_has_a_linear_probe():
    recipes = (RECIPES / "linear_probe").glob("*.yaml")
    tasks = {yaml.safe_load(path.read_text())["evaluation"]["task"] for path in recipes}
    vision = [row for row in rows() if row.part == "vision"]
    assert len(vision) == 22
    assert [row.name for row in vision if not any((task,) in row.tasks for task in tasks)] == []


def test_a_folder_may_have_an_equals_sign(run):
    (column,) = columns([str(run("rte", "lr=1", metrics={"accuracy": 0.5}))])
    assert column.name == "ours"


def test_what_has_no_row_is_named(run):
    column = Column("ours", [run(None, "demo", zero_shot={"accuracy": 1.0}), run("food101", retrieval={"x": 1})])
    notes = table([column]).notes
    assert any("demo names no task" in note for note in notes)
    assert any(note.endswith("the table has no row for retrieval of food101.") for note in notes)
    assert column.cells() == {}


@pytest.mark.parametrize(
    ("task", "evaluation", "message"),
    [
        ("mprc", {}, r"no task 'mprc'; did you mean mrpc"),
        ("winoground", {}, r"no task 'winoground'; the table knows aircraft, "),
        ("mrpc", {"metrics": {"accuracy": 0.8}}, "MRPC needs accuracy and f1 of 'metrics', which has accuracy: .* f1"),
        ("rte", {"metrics": {"accuracy": 57.76}}, r"metrics.accuracy is 57.76; figures are shares of 1"),
        ("stsb", {"metrics": {"pearson": float("nan")}}, r"metrics.pearson is nan"),
    ],
)
def test_what_is_refused(run, task, evaluation, message):
    with pytest.raises(UserError, match=message):
        values(run(task, **evaluation))


def test_folders_without_results(tmp_path):
    with pytest.raises(UserError, match=r"holds no evaluation\.json"):
        Column("ours", [tmp_path])
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        Column("ours", [tmp_path])
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(UserError, match="is no JSON object"):
        Column("ours", [tmp_path])


def test_a_column_of_the_papers_name_is_refused(run):
    with pytest.raises(UserError, match="'FLAVA' is a column of the paper's"):
        table(columns([f"FLAVA={run('rte', metrics={'accuracy': 0.5})}"]))


def test_markdown_has_the_papers_layout(run):
    folder = run("rte", updates=7, metrics={"accuracy": 0.5})
    text = markdown(table(columns([str(folder)])))
    rte, nlp = (next(line for line in text.splitlines() if line.startswith(start)) for start in ("| RTE", "| **NLP"))
    assert rte == "| RTE | 50.00 | - | 50.54 | 51.99 | 51.99 | 54.87 | 57.76 | 53.07 | 55.23 |"
    assert nlp.startswith("| **NLP average** | **not run** | - | **71.55** |")
    assert f"- ours, rte: `{folder}`, split val, update 7\n" in text
    assert "prints 98.61" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_json_has_unrounded_figures_and_their_runs(run):
    folder = run("mrpc", metrics={"accuracy": 0.8, "f1": 0.87654321})
    content = json.loads(json_text(table(columns([str(folder)]), "table_c1")))
    by_task = {row["task"]: row for row in content["rows"]}
    assert by_task["MRPC"]["ours"]["ours"] == {"value": pytest.approx(83.8271605), "runs": [str(folder)]}
    assert by_task["RTE"]["ours"] == {"ours": None}
    assert len(by_task["MRPC"]["paper"]) == 14
    assert content["runs"] == [{"column": "ours", "task": "mrpc", "folder": str(folder), "split": "val"}]


def test_the_command(run, tmp_path, capsys):
    folder, out = run("rte", metrics={"accuracy": 0.5}), tmp_path / "table.csv"
    made = table(columns([str(folder)]))
    assert main([str(folder), "--out", str(out)]) == 0
    assert out.read_text() == render(made, "csv")
    capsys.readouterr()
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == render(made, "markdown")
    assert main([str(tmp_path)]) == 2
    assert main([str(folder), "--out", str(tmp_path / "none" / "table.md")]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_rows_that_the_paper_lacks_are_there_where_they_were_run(run):
    bare = table([Column("ours", [run("cifar10", linear_probe={"accuracy": 0.5})])])
    assert not any("zero-shot" in name or "Demo" in name for name in bare.names)
    runs = [run("cifar10", "other", zero_shot={"accuracy": 0.25}), run("demo_digits", metrics={"accuracy": 1.0})]
    more = table([Column("ours", runs)])
    assert [name for name in more.names if name not in bare.names] == ["CIFAR10 zero-shot", "Demo's digits finetuned"]
