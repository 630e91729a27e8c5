"""Several runs side by side: their names, their recipes, what went wrong, and runs that are still going."""

import json
import re
from pathlib import Path

from omegaconf import OmegaConf

from mmf_flava.report.recipe import GIVEN, differences, read_recipe
from mmf_flava.report.run import names, read_runs
from mmf_flava.report.troubles import read_troubles
from mmf_flava.report.wording import NOTHING
from tests.report.test_report_page import MakeRun, page


def recipe(folder: Path, lr: float, weight: float = 1.0) -> None:
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


def test_names_are_what_the_paths_differ_in(tmp_path: Path) -> None:
    for paths, expected in (
        (["sweep/a/save", "sweep/b/save"], ["a", "b"]),
        (["x/a", "y/a", "y/b"], ["x/a", "y/a", "y/b"]),
        (["a", "a"], ["a", "a"]),
        (["a", "a/b"], ["a", "b"]),
        (["alone"], ["alone"]),
    ):
        assert names([tmp_path / path for path in paths]) == expected


def test_only_keys_that_differ_are_named(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "first", pictures=0), make_run(tmp_path / "second", pictures=0)
    recipe(first, lr=0.001)
    recipe(second, lr=0.002, weight=0.5)
    found = differences([read_recipe(first), read_recipe(second)])
    assert found == {
        "optimizer.params.lr": ["0.001", "0.002"],
        "model_config.flava.losses[flava_mim].weight": ["1.0", "0.5"],
    }
    text = page(first, second)
    assert "<code>optimizer.params.lr</code></th><td>0.001</td><td>0.002</td>" in text
    assert "training.seed" not in text and "env.save_dir" not in text


def test_a_run_without_a_recipe_does_not_differ(tmp_path: Path) -> None:
    recipe(tmp_path, lr=0.001)
    one = read_recipe(tmp_path)
    assert differences([one, {}, one]) == {}
    assert differences([one, {}, {**one, "training.seed": "2"}]) == {"training.seed": ["1", None, "2"]}
    for broken in ("training: [", "- 1\n- 2\n", "", "a: ${b"):
        (tmp_path / "config.yaml").write_text(broken)
        assert read_recipe(tmp_path) in ({}, {"a": "${b"}), broken


def test_a_section_that_a_run_lacks_is_one_entry() -> None:
    with_b = {"data.a.size": "1", "data.b.size": "2", "data.b.mask.share": "0.1", "data.b.mask.exact": "false"}
    assert differences([with_b, {"data.a.size": "1"}]) == {"data.b": [GIVEN, None]}
    other = {**with_b, "data.b.size": "3"}
    assert differences([with_b, {"data.a.size": "1"}, other]) == {
        "data.b.size": ["2", None, "3"],
        "data.b": [GIVEN, None, GIVEN],
    }


def test_a_run_that_goes_on_says_where_it_is(tmp_path: Path, make_run: MakeRun) -> None:
    done, going = make_run(tmp_path / "done", pictures=0), make_run(tmp_path / "going", updates=300, pictures=0)
    for name in ("summary.json", "evaluation.json"):
        (going / name).unlink()
    recipe(going, lr=0.001)
    with (going / "metrics.jsonl").open("a") as file:
        file.write('{"update": 310, "split": "tr')
    text = page(done, going)
    assert f"<td>{NOTHING}</td><td>at update 300 of 900, not finished</td>" in text


def test_losses_of_one_run_only_have_a_chart(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run(tmp_path / "first", pictures=0), make_run(tmp_path / "second", pictures=0)
    lines = (second / "metrics.jsonl").read_text().replace("flava_mim", "another")
    (second / "metrics.jsonl").write_text(lines)
    text = page(first, second)
    assert re.search('aria-label="another loss over the updates: second from [0-9.]+ to [0-9.]+"', text)
    assert (
        f'<th scope="row">another</th><td>{NOTHING}</td>' in text
        and "Masked image modeling loss over the updates" in text
    )


def test_troubles_come_from_the_summary_or_from_the_files(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", pictures=0)
    record = {"dataset": "pmd", "split": "train", "record": 7, "reason": "not an image"}
    lines = [record, record, {**record, "record": 8}, {**record, "record": 9, "reason": "no caption"}]
    (run / "quarantine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "quarantine_1.jsonl").write_text(json.dumps({**record, "record": 10}) + '\n{"dataset": ')
    (run / "skipped.jsonl").write_text('{"update": 3}\n{"update": 5}\n{"update": 5}\n')
    found = read_troubles(run, {})
    assert found.bad_records == {"pmd": {"not an image": 3, "no caption": 1}} and found.skipped == 2
    assert read_troubles(run, {"bad_records": {"pmd": {"no text": 2}}}).bad_records == {"pmd": {"no text": 2}}
    text = page(run, make_run(tmp_path / "other", pictures=0))
    assert f"<td>pmd: 3 not an image and 1 no caption</td><td>{NOTHING}</td>" in text
    assert f'<th scope="row">Skipped updates</th><td>2</td><td>{NOTHING}</td>' in text
    assert [one.troubles.skipped for one in read_runs([run])] == [2]
