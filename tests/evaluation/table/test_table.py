"""Tests of the table with the results of run folders in the paper's layout."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from mmf_flava.config.tasks import TASKS, parse_task
from mmf_flava.errors import UserError
from mmf_flava.evaluation.table.__main__ import main
from mmf_flava.evaluation.table.layout import build_table, render, render_csv, render_json, render_markdown
from mmf_flava.evaluation.table.paper import table_rows
from mmf_flava.evaluation.table.results import Column, parse_columns

RECIPES = Path(__file__).parents[3] / "projects/flava/configs"
RECALL = {"image_to_text_r1": 0.1, "image_to_text_r5": 0.2, "text_to_image_r1": 0.3, "text_to_image_r5": 0.4}


def values(*folders):
    return {name: cell.value for name, cell in Column("ours", folders).cells().items()}


def read_rows(text):
    return {row["task"]: row for row in csv.DictReader(text.splitlines())}


def run_all_tasks(make_run):
    """Create a run of each task with the value 0.5 for NLP, 0.6 for vision and 0.7 for all others."""
    folders = []
    for row in table_rows():
        task = "".join(row.tasks[0]) if row.tasks else None
        value = {"NLP": 0.5, "vision": 0.6}.get(row.group, 0.7)
        name = f"{task}_{row.section}"
        if task and not any(folder.name == name for folder in folders):
            metrics = RECALL if row.section == "retrieval" else row.metrics
            folders.append(make_run(task, name, **{row.section: dict.fromkeys(metrics, value)}))
    return folders


def test_a_row_is_the_mean_of_its_metrics(make_run):
    folder = make_run("mrpc", metrics={"accuracy": 0.8, "f1": 0.9, "loss": 3.0})
    assert values(folder) == {"MRPC": pytest.approx(85)}


def test_a_run_fills_all_rows_of_its_task(make_run):
    assert values(make_run("coco", retrieval={"images": 5000, **RECALL})) == pytest.approx(
        {"COCO TR@1": 10, "COCO TR@5": 20, "COCO IR@1": 30, "COCO IR@5": 40}
    )
    found = values(make_run("imagenet", zero_shot={"accuracy": 0.5}, linear_probe={"accuracy": 0.75}))
    assert found == {"ImageNet": 75, "ImageNet zero-shot": 50}


def test_negative_correlation_is_accepted(make_run):
    assert values(make_run("cola", metrics={"matthews": -0.25})) == {"CoLA": -25}


@pytest.mark.parametrize("spelling", ["sst2", "SST-2", "sst_2"])
def test_spelling_variants_of_a_task_are_equal(make_run, spelling):
    assert values(make_run(spelling, metrics={"accuracy": 0.9})) == {"SST-2": 90}


def test_mnli_is_the_mean_of_matched_and_mismatched(make_run):
    matched = make_run("mnli_matched", metrics={"accuracy": 0.8})
    column = Column("ours", [matched])
    assert column.cells() == {}
    assert column.skipped == [f"MNLI requires a run with task mnli_mismatched in addition to {matched}."]
    mismatched = make_run("mnli_mismatched", metrics={"accuracy": 0.9})
    assert values(matched, mismatched) == {"MNLI": pytest.approx(85)}
    with pytest.raises(UserError, match=r"mnli and .*mnli_matched both have results for MNLI"):
        values(matched, mismatched, make_run("mnli", metrics={"accuracy": 0.7}))


def test_averages_of_complete_groups(make_run):
    found = values(*run_all_tasks(make_run))
    assert len(found) == len(table_rows())
    assert found["NLP average"] == pytest.approx(50)
    assert found["Vision average"] == pytest.approx(60)
    assert found["Multimodal average"] == pytest.approx(70)
    assert found["Macro average"] == pytest.approx(60)


def test_no_average_if_a_row_is_missing(make_run):
    folders = [folder for folder in run_all_tasks(make_run) if folder.name != "rte_metrics"]
    found = values(*folders)
    assert {row.name for row in table_rows()} - found.keys() == {
        "RTE",
        "NLP average",
        "Macro average",
        "Macro average (NLP, vision)",
    }
    text = read_rows(render_csv(build_table([Column("ours", folders)])))
    assert text["RTE"]["ours"] == text["NLP average"]["ours"] == text["Macro average"]["ours"] == "not run"
    assert text["Vision average"]["ours"] == "60.00"


def test_two_runs_of_a_row_require_two_columns(make_run):
    first, second = (make_run("rte", name, metrics={"accuracy": value}) for name, value in (("a", 0.5), ("b", 0.6)))
    with pytest.raises(
        UserError, match=rf"{first} and {second} both have results for metrics of rte.*A={first} B={second}"
    ):
        parse_columns([str(first), str(second)])
    text = read_rows(render_csv(build_table(parse_columns([str(first), f"large={second}"]))))
    assert (text["RTE"]["ours"], text["RTE"]["large"], text["RTE"]["FLAVA"]) == ("50.00", "60.00", "57.76")
    assert len(parse_columns([str(first), str(first)])) == 1


def test_known_tasks_are_those_of_the_rows():
    assert {name for row in table_rows() for names in row.tasks for name in names} == set(TASKS)


def test_tasks_of_the_recipes_have_rows():
    tasks = {}
    for path in RECIPES.rglob("*.yaml"):
        task = (yaml.safe_load(path.read_text()).get("evaluation") or {}).get("task")
        if task is not None and "$" not in task and not path.name.startswith("demo_"):
            tasks[path] = task
    assert len(tasks) > 20
    assert {path: parse_task(task, path) for path, task in tasks.items()} == tasks


@pytest.mark.parametrize("written", ["sst2", "SST-2", "glue_sst2", "glue sst-2"])
def test_spellings_of_a_task(written):
    assert parse_task(written, "evaluation.task") == "sst2"


def test_every_vision_row_has_a_linear_probe_recipe():
    recipes = (RECIPES / "linear_probe").glob("*.yaml")
    tasks = {yaml.safe_load(path.read_text())["evaluation"]["task"] for path in recipes}
    vision = [row for row in table_rows() if row.group == "vision"]
    assert len(vision) == 22
    assert [row.name for row in vision if not any((task,) in row.tasks for task in tasks)] == []


def test_folder_names_may_contain_an_equals_sign(make_run):
    (column,) = parse_columns([str(make_run("rte", "lr=1", metrics={"accuracy": 0.5}))])
    assert column.name == "ours"


def test_results_without_a_row_are_listed_in_the_notes(make_run):
    column = Column(
        "ours", [make_run(None, "demo", zero_shot={"accuracy": 1.0}), make_run("food101", retrieval={"x": 1})]
    )
    notes = build_table([column]).notes
    assert any("demo was skipped, because its evaluation.json has no task" in note for note in notes)
    assert any(note.endswith("the table has no row for retrieval of food101.") for note in notes)
    assert column.cells() == {}


@pytest.mark.parametrize(
    ("task", "evaluation", "message"),
    [
        ("mprc", {}, r"unknown task 'mprc'; did you mean mrpc"),
        ("winoground", {}, r"unknown task 'winoground'; known tasks: aircraft, "),
        (
            "mrpc",
            {"metrics": {"accuracy": 0.8}},
            "MRPC requires accuracy and f1 in section 'metrics', but the section has accuracy. .* f1",
        ),
        ("rte", {"metrics": {"accuracy": 57.76}}, r"metrics.accuracy must be between -1 and 1, got 57.76"),
        ("stsb", {"metrics": {"pearson": float("nan")}}, r"metrics.pearson must be between -1 and 1, got nan"),
    ],
)
def test_invalid_evaluations_raise(make_run, task, evaluation, message):
    with pytest.raises(UserError, match=message):
        values(make_run(task, **evaluation))


def test_folders_without_a_valid_evaluation_raise(tmp_path):
    with pytest.raises(UserError, match=r"has no evaluation\.json"):
        Column("ours", [tmp_path])
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be read \(Expecting"):
        Column("ours", [tmp_path])
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object, got list"):
        Column("ours", [tmp_path])


def test_column_name_of_the_paper_raises(make_run):
    with pytest.raises(UserError, match="'FLAVA' is already in the paper's table"):
        build_table(parse_columns([f"FLAVA={make_run('rte', metrics={'accuracy': 0.5})}"]))


def test_markdown_has_the_papers_layout(make_run):
    folder = make_run("rte", updates=7, metrics={"accuracy": 0.5})
    text = render_markdown(build_table(parse_columns([str(folder)])))
    rte, nlp = (next(line for line in text.splitlines() if line.startswith(start)) for start in ("| RTE", "| **NLP"))
    assert rte == "| RTE | 50.00 | - | 50.54 | 51.99 | 51.99 | 54.87 | 57.76 | 53.07 | 55.23 |"
    assert nlp.startswith("| **NLP average** | **not run** | - | **71.55** |")
    assert f"- ours, rte: `{folder}`, split val, update 7\n" in text
    assert "prints 98.61" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_json_has_unrounded_values_and_their_runs(make_run):
    folder = make_run("mrpc", metrics={"accuracy": 0.8, "f1": 0.87654321})
    content = json.loads(render_json(build_table(parse_columns([str(folder)]), "table_c1")))
    by_task = {row["task"]: row for row in content["rows"]}
    assert by_task["MRPC"]["ours"]["ours"] == {"value": pytest.approx(83.8271605), "runs": [str(folder)]}
    assert by_task["RTE"]["ours"] == {"ours": None}
    assert len(by_task["MRPC"]["paper"]) == 14
    assert content["runs"] == [{"column": "ours", "task": "mrpc", "folder": str(folder), "split": "val"}]


def test_command_line(make_run, tmp_path, capsys):
    folder, out = make_run("rte", metrics={"accuracy": 0.5}), tmp_path / "table.csv"
    expected = build_table(parse_columns([str(folder)]))
    assert main([str(folder), "--out", str(out)]) == 0
    assert out.read_text() == render(expected, "csv")
    capsys.readouterr()
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == render(expected, "markdown")
    assert main([str(tmp_path)]) == 2
    assert main([str(folder), "--out", str(tmp_path / "none" / "table.md")]) == 2
    assert "Set another --out" in capsys.readouterr().err


def test_rows_that_are_not_in_the_paper_are_shown_if_run(make_run):
    bare = build_table([Column("ours", [make_run("cifar10", linear_probe={"accuracy": 0.5})])])
    assert not any("zero-shot" in name or "Demo" in name for name in bare.names)
    runs = [
        make_run("cifar10", "other", zero_shot={"accuracy": 0.25}),
        make_run("demo_digits", metrics={"accuracy": 1.0}),
    ]
    more = build_table([Column("ours", runs)])
    assert [name for name in more.names if name not in bare.names] == ["CIFAR10 zero-shot", "Demo's digits finetuned"]


def test_runs_with_bad_records_state_their_number_of_samples(make_run):
    samples = {"pmd": {"evaluated": 998, "bad": 2}, "broken": 7}
    table = build_table(parse_columns([str(make_run("mrpc", metrics={"accuracy": 0.8, "f1": 0.9}, samples=samples))]))
    assert ", 998 of 1,000 samples of pmd\n" in render_markdown(table)
    assert json.loads(render_json(table))["runs"][0]["samples"] == samples
    clean = build_table(parse_columns([str(make_run("mrpc", "clean", metrics={"accuracy": 0.8, "f1": 0.9}))]))
    assert "samples" not in render_markdown(clean) and "samples" not in json.loads(render_json(clean))["runs"][0]


@pytest.mark.parametrize("metrics", [["accuracy"], "accuracy", 5, {"accuracy": 10**400}])
def test_damaged_metrics_are_refused(make_run, metrics):
    folder = make_run("rte", metrics=metrics)
    with pytest.raises(UserError, match=r"evaluation\.json: metrics.* must be (a JSON object|between -1 and 1)"):
        build_table(parse_columns([str(folder)]))
