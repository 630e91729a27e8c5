"""Comparison of several runs: names, recipes, issues, and runs in progress."""

import json
import re
from pathlib import Path

from omegaconf import OmegaConf

from mmf_flava.report.issues import read_issues
from mmf_flava.report.recipe import PRESENT, diff_recipes, read_recipe
from mmf_flava.report.run import read_runs, short_names
from mmf_flava.report.wording import NO_VALUE
from tests.report.test_report_page import MakeRun, page


def write_recipe(folder: Path, lr: float, weight: float = 1.0) -> None:
    losses = [{"type": "flava_mim", "weight": weight}, {"type": "flava_mlm", "weight": 1.0}]
    config = {
        "training": {"max_updates": 900, "seed": 1},
        "optimizer": {"params": {"lr": lr}},
        "model_config": {"flava": {"losses": losses}},
        "datasets": "pmd",
        "dataset_config": {"pmd": {"views": 4}, "unused": {"views": lr}},
        "env": {"save_dir": str(folder)},
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")


def test_names_are_the_differing_path_components(tmp_path: Path) -> None:
    for paths, expected in (
        (["sweep/a/save", "sweep/b/save"], ["a", "b"]),
        (["x/a", "y/a", "y/b"], ["x/a", "y/a", "y/b"]),
        (["a", "a"], ["a", "a"]),
        (["a", "a/b"], ["a", "b"]),
        (["alone"], ["alone"]),
    ):
        assert short_names([tmp_path / path for path in paths]) == expected


def test_only_differing_keys_are_shown(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "first", images=0), make_run(tmp_path / "second", images=0)
    write_recipe(first, lr=0.001)
    write_recipe(second, lr=0.002, weight=0.5)
    found = diff_recipes([read_recipe(first), read_recipe(second)])
    assert found == {
        "optimizer.params.lr": ["0.001", "0.002"],
        "model_config.flava.losses[flava_mim].weight": ["1.0", "0.5"],
    }
    text = page(first, second)
    assert "<code>optimizer.params.lr</code></th><td>0.001</td><td>0.002</td>" in text
    assert "training.seed" not in text and "env.save_dir" not in text


def test_run_without_a_recipe_is_ignored(tmp_path: Path) -> None:
    write_recipe(tmp_path, lr=0.001)
    found = read_recipe(tmp_path)
    assert diff_recipes([found, {}, found]) == {}
    assert diff_recipes([found, {}, {**found, "training.seed": "2"}]) == {"training.seed": ["1", None, "2"]}
    for broken in ("training: [", "- 1\n- 2\n", "", "a: ${b"):
        (tmp_path / "config.yaml").write_text(broken)
        assert read_recipe(tmp_path) in ({}, {"a": "${b"}), broken


def test_recipe_is_shown_without_environment_variables_and_credentials(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "{a: '${oc.env:NOT_SET}', b: '${env:NOT_SET}', c: ['https://user:word@host/x?token=word']}"
    )
    expected = {"a": "${oc.env:NOT_SET}", "b": "${env:NOT_SET}", "c": '["https://***@host/x?***"]'}
    assert read_recipe(tmp_path) == expected


def test_aliases_that_multiply_are_not_expanded(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, other in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{other}'] * 9)}]")
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    assert read_recipe(tmp_path) == {}


def test_missing_section_is_one_entry() -> None:
    with_b = {"data.a.size": "1", "data.b.size": "2", "data.b.mask.share": "0.1", "data.b.mask.exact": "false"}
    assert diff_recipes([with_b, {"data.a.size": "1"}]) == {"data.b": [PRESENT, None]}
    other = {**with_b, "data.b.size": "3"}
    assert diff_recipes([with_b, {"data.a.size": "1"}, other]) == {
        "data.b.size": ["2", None, "3"],
        "data.b": [PRESENT, None, PRESENT],
    }


def test_run_in_progress_shows_its_update(tmp_path: Path, make_run: MakeRun) -> None:
    done = make_run(tmp_path / "done", images=0)
    unfinished = make_run(tmp_path / "unfinished", updates=300, images=0)
    for name in ("summary.json", "evaluation.json"):
        (unfinished / name).unlink()
    write_recipe(unfinished, lr=0.001)
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"update": 310, "split": "tr')
    text = page(done, unfinished)
    assert f"<td>{NO_VALUE}</td><td>at update 300 of 900, not finished</td>" in text


def test_loss_of_a_single_run_has_a_chart(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "first", images=0), make_run(tmp_path / "second", images=0)
    text = (second / "metrics.jsonl").read_text().replace("flava_mim", "another")
    (second / "metrics.jsonl").write_text(text)
    text = page(first, second)
    assert re.search('aria-label="another loss over the updates: second from [0-9.]+ to [0-9.]+"', text)
    assert (
        f'<th scope="row">another</th><td>{NO_VALUE}</td>' in text
        and "Masked image modeling loss over the updates" in text
    )


def test_issues_are_read_from_the_summary_or_the_files(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", images=0)
    record = {"dataset": "pmd", "split": "train", "record": 7, "reason": "not an image"}
    records = [record, record, {**record, "record": 8}, {**record, "record": 9, "reason": "no caption"}]
    (run / "quarantine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in records))
    (run / "quarantine_1.jsonl").write_text(json.dumps({**record, "record": 10}) + '\n{"dataset": ')
    (run / "skipped.jsonl").write_text('{"update": 3}\n{"update": 5}\n{"update": 5}\n')
    issues = read_issues(run, {})
    assert issues.bad_records == {"pmd": {"not an image": 3, "no caption": 1}} and issues.skipped_updates == 2
    assert read_issues(run, {"bad_records": {"pmd": {"no text": 2}}}).bad_records == {"pmd": {"no text": 2}}
    text = page(run, make_run(tmp_path / "other", images=0))
    assert f"<td>pmd: 3 not an image and 1 no caption</td><td>{NO_VALUE}</td>" in text
    assert f'<th scope="row">Skipped updates</th><td>2</td><td>{NO_VALUE}</td>' in text
    assert [run.issues.skipped_updates for run in read_runs([run])] == [2]
