"""Runs in, one HTML page out: this file decides what is said; template.html and report.css decide how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from mmf_flava import __version__
from mmf_flava.report import wording
from mmf_flava.report.cards import loss_cards, loss_ends, loss_names, machine_cards, score_cards
from mmf_flava.report.charts import RUN_COLOURS, dash
from mmf_flava.report.confusion import Confusion, read_confusion
from mmf_flava.report.recipe import differences
from mmf_flava.report.run import FILES, SUMMARY, Run
from mmf_flava.report.scores import DIRECTIONS, METRIC, Score, best, metric_names, score, speed, time, updates

HERE = Path(__file__).parent
MOST = 24  # examples shown of each sort
MOST_KEYS = 60  # of the recipe
# facts that only some runs have, and that differ thereby; of the others a run that goes on knows nothing yet
TOLD = ("State", "Bad records, replaced", "Skipped updates")


@dataclass(frozen=True)
class Row:
    """One figure of every run."""

    label: str
    cells: list[str]  # none: a heading for the rows below
    best: int | None = None
    key: bool = False  # the label is a key of the recipe


@dataclass(frozen=True)
class Part:
    """What is shown of each run by itself."""

    run: Run
    confusion: Confusion | None
    recalls: list[Row]
    tiles: list[Score]
    facts: list[tuple[str, str]]


def render(runs: Sequence[Run]) -> str:
    """The whole page as HTML; everything that came out of a file is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals |= {
        "wording": wording,
        "time": time,
        "speed": speed,
        "updates": updates,
        "hits": _hits,
        "dash": dash,
    }
    return environment.get_template("template.html").render(
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        headline=_headline(runs[0]),
        lead=_lead(runs[0]),
        parts=[_part(run) for run in runs],
        comparison=_comparison(runs),
        same=[(label, cells[0]) for label, cells in _shared_facts(runs).items() if len(set(cells)) == 1],
        losses=loss_cards(runs),
        quality=score_cards(runs),
        machine=machine_cards(runs),
        validated=any(line.losses for run in runs for line in run.validation),
        tested=any(run.evaluation for run in runs),
        most=MOST,
        colours=RUN_COLOURS,
        files=FILES,
        version=__version__,
    )


def _headline(run: Run) -> str:
    """What was trained, and how long."""
    model = run.summary.model or "flava"
    words = "FLAVA" if model == "flava" else model
    words += f", {wording.count(updates(run))} updates" if updates(run) else ""
    return words + (f" in {wording.duration(time(run))}" if time(run) else "")


def _lead(run: Run) -> str:
    """On what, and with what."""
    summary = run.summary
    trained = f"{wording.short(summary.parameters)} parameters" if summary.parameters else "It was"
    trained += " trained" if summary.samples or summary.datasets else ""
    if summary.samples:
        trained += f" on {wording.count(summary.samples)} samples"
    if summary.datasets:
        trained += f" {'of' if summary.samples else 'on'} {wording.listing(summary.datasets)}"
    words = [trained] if trained != "It was" else []
    words += [f"batches of {wording.count(summary.batch_size)}"] if summary.batch_size else []
    words += [summary.precision] if summary.precision else []
    return ", ".join(words) + (f" on {summary.device}" if summary.device and words else "") + "." * bool(words)


def _part(run: Run) -> Part:
    recalls = []
    for direction, label in DIRECTIONS.items():
        found = [score(run, f"{direction}_r{rank}").value for rank in (1, 5, 10)]
        if any(value is not None for value in found):
            recalls.append(Row(label, [wording.percent(value) for value in found]))
    return Part(
        run=run,
        confusion=read_confusion(run.evaluation),
        recalls=recalls,
        tiles=[
            tile
            for tile in (
                score(run, "accuracy"),
                *(score(run, f"{direction}_r1") for direction in DIRECTIONS),
                *(score(run, METRIC + name) for name in metric_names([run])),
            )
            if tile.value is not None
        ],
        facts=_facts(run),
    )


def _hits(part: Part) -> str:
    hidden = [piece for sentence in part.run.examples.sentences for piece in sentence.pieces if piece.masked]
    right = sum(piece.right for piece in hidden)
    return f"{right} of {len(hidden)} hidden word pieces are right." if hidden else ""


def _facts(run: Run) -> list[tuple[str, str]]:
    summary = run.summary
    rates = [line.values["lr"] for line in run.train if "lr" in line.values]
    waits = [line.values["data_wait"] for line in run.train if "data_wait" in line.values]
    facts = [
        ("Model", summary.model),
        ("Parameters", wording.count(summary.parameters) if summary.parameters else None),
        ("Updates", wording.count(updates(run))),
        ("State", _state(run)),
        ("Batch size", wording.count(summary.batch_size) if summary.batch_size else None),
        ("Samples seen", wording.count(summary.samples) if summary.samples else None),
        ("Datasets", ", ".join(summary.datasets)),
        ("Learning rate", f"{wording.plain(max(rates))} at its highest" if rates else None),
        ("Precision", summary.precision),
        ("Device", summary.device),
        ("Time", wording.duration(time(run)) if time(run) else None),
        ("Samples per second", wording.count(speed(run)) if speed(run) else None),
        ("Waiting for data", f"{wording.percent(sum(waits) / len(waits))} of the time" if waits else None),
        ("Bad records, replaced", _bad_records(run)),
        ("Skipped updates", wording.count(run.troubles.skipped) if run.troubles.skipped else None),
        ("mmf_flava", summary.version),
        ("Files read", ", ".join(file for file in FILES if file not in run.missing)),
    ]
    return [(label, value) for label, value in facts if value and value != wording.NOTHING]


def _state(run: Run) -> str | None:
    """Said of runs that have not written their summary, by which nobody can tell whether they go on."""
    if SUMMARY not in run.missing or not run.train:
        return None
    total = run.recipe.get("training.max_updates", "")
    return f"at update {wording.count(run.train[-1].update)}" + (
        f" of {wording.count(int(total))}, not finished" if total.isdecimal() else ", not finished"
    )


def _bad_records(run: Run) -> str | None:
    of_datasets = [
        f"{name}: {wording.listing([f'{wording.count(count)} {reason}' for reason, count in reasons.items()])}"
        for name, reasons in run.troubles.bad_records.items()
    ]
    return "; ".join(of_datasets) or None


def _comparison(runs: Sequence[Run]) -> list[Row]:
    """The figures of all runs in one table."""
    labels = {"accuracy": "Zero-shot accuracy"}
    labels |= {f"{key}_r{rank}": f"{label} R@{rank}" for key, label in DIRECTIONS.items() for rank in (1, 5, 10)}
    labels |= {METRIC + name: score(runs[0], METRIC + name).title for name in metric_names(runs)}
    figures = []
    for key, label in labels.items():
        scores = [score(run, key) for run in runs]
        cells = [wording.percent(one.value) + ("" if one.final or one.value is None else " (val)") for one in scores]
        alike = len({one.final for one in scores if one.value is not None}) == 1  # no race of test against validation
        figures.append(Row(label, cells, best([one.value for one in scores]) if alike else None))
    losses = []
    for name in loss_names(runs):
        values = [end[1] if (end := loss_ends(run, name)) else None for run in runs]
        losses.append(Row(wording.LOSSES.get(name, (name, ""))[0], [wording.loss(value) for value in values]))
    facts = [
        Row(label, cells)
        for label, cells in _shared_facts(runs).items()
        if len(set(cells) - {wording.NOTHING}) > 1 or (label in TOLD and len(set(cells)) > 1)
    ]
    keys = [
        Row(key, [wording.NOTHING if value is None else value for value in values], key=True)
        for key, values in differences([run.recipe for run in runs]).items()
    ]
    if len(keys) > MOST_KEYS:
        keys = [*keys[:MOST_KEYS], Row(f"and {len(keys) - MOST_KEYS} more", ["…"] * len(runs))]
    rows: list[Row] = []
    for heading, group in (
        ("Scores", figures),
        ("Losses at the end of training", losses),
        ("What differs", facts),
        ("Keys of the recipe that differ", keys),
    ):
        if group := [row for row in group if any(cell != wording.NOTHING for cell in row.cells)]:
            rows += [Row(heading, []), *group]
    return rows


def _shared_facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Each fact that any run has, with the values of all runs."""
    facts = [dict(_facts(run)) for run in runs]
    labels = [label for of_run in facts for label in of_run if label != "Files read"]
    return {label: [of_run.get(label, wording.NOTHING) for of_run in facts] for label in labels}
