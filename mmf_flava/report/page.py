"""Rendering of the HTML page: this module prepares the content; template.html and report.css define the layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmf_flava import __version__
from mmf_flava.report import wording
from mmf_flava.report.cards import feature_cards, first_and_last_loss, loss_cards, loss_names, score_cards, speed_cards
from mmf_flava.report.charts import RUN_COLOURS, dash_index
from mmf_flava.report.collapse import describe_collapse
from mmf_flava.report.confusion import Confusion, read_confusion
from mmf_flava.report.recipe import diff_recipes
from mmf_flava.report.run import FILES, SUMMARY, Run
from mmf_flava.report.scores import (
    DIRECTIONS,
    FEATURE_TITLES,
    METRIC_PREFIX,
    Score,
    get_score,
    index_of_best,
    metric_names,
    samples_per_second,
    training_seconds,
    update_count,
)
from mmf_flava.report.templates import STYLE, load_template, read_styles

HERE = Path(__file__).parent
MAX_EXAMPLES = 24  # maximum number of images and of sentences
MAX_KEYS = 60  # maximum number of differing recipe keys
# facts that are compared even if some runs lack them; other facts are missing only while a run is in progress
OPTIONAL_FACTS = ("State", "Bad records", "Scores computed on", "Skipped updates")


@dataclass(frozen=True)
class ComparisonRow:
    """A row of the comparison table, with one cell per run."""

    label: str
    cells: list[str]  # empty for a heading
    best: int | None = None  # index of the best run
    key: bool = False  # whether the label is a key of the recipe


@dataclass(frozen=True)
class RunSection:
    """The section of the page for a single run."""

    run: Run
    confusion: Confusion | None
    recalls: list[ComparisonRow]
    tiles: list[Score]
    facts: list[tuple[str, str]]


def render(runs: Sequence[Run]) -> str:
    """Return the page as HTML; all content of the run folders is escaped."""
    functions = (training_seconds, samples_per_second, update_count, dash_index)
    named = {function.__name__: function for function in functions}
    return load_template(HERE, wording=wording, count_correct=_count_correct, **named).render(
        css=read_styles(STYLE),
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        headline=_headline(runs[0]),
        subtitle=_subtitle(runs[0]),
        sections=[_build_section(run) for run in runs],
        comparison=_comparison(runs),
        common=[(label, cells[0]) for label, cells in _shared_facts(runs).items() if len(set(cells)) == 1],
        losses=loss_cards(runs),
        scores=score_cards(runs),
        features=feature_cards(runs),
        collapsed=[sentence for run in runs if (sentence := _collapse(run, several=len(runs) > 1))],
        speed=speed_cards(runs),
        has_validation=any(record.losses for run in runs for record in run.validation),
        has_evaluation=any(run.evaluation for run in runs),
        max_examples=MAX_EXAMPLES,
        colours=RUN_COLOURS,
        files=FILES,
        version=__version__,
    )


def _headline(run: Run) -> str:
    """Return the heading of the page: the model, the number of updates and the training time."""
    model = run.summary.model or "flava"
    words = "FLAVA" if model == "flava" else model
    words += f", {wording.format_count(update_count(run))} updates" if update_count(run) else ""
    return words + (f" in {wording.format_duration(training_seconds(run))}" if training_seconds(run) else "")


def _subtitle(run: Run) -> str:
    """Return the line below the heading: the model size, the data, the batch size, the precision and the device."""
    summary = run.summary
    trained = f"{wording.format_short(summary.parameters)} parameters" if summary.parameters else "Model"
    trained += " trained" if summary.samples or summary.datasets else ""
    if summary.samples:
        trained += f" on {wording.format_count(summary.samples)} samples"
    if summary.datasets:
        trained += f" {'of' if summary.samples else 'on'} {wording.join_words(summary.datasets)}"
    words = [trained] if trained != "Model" else []
    words += [f"batch size {wording.format_count(summary.batch_size)}"] if summary.batch_size else []
    words += [summary.precision] if summary.precision else []
    return ", ".join(words) + (f" on {summary.device}" if summary.device and words else "") + "." * bool(words)


def _build_section(run: Run) -> RunSection:
    recalls = []
    for direction, label in DIRECTIONS.items():
        values = [get_score(run, f"{direction}_r{depth}").value for depth in (1, 5, 10)]
        if any(value is not None for value in values):
            recalls.append(ComparisonRow(label, [wording.format_percent(value) for value in values]))
    return RunSection(
        run=run,
        confusion=read_confusion(run.evaluation),
        recalls=recalls,
        tiles=[
            tile
            for tile in (
                get_score(run, "accuracy"),
                *(get_score(run, f"{direction}_r1") for direction in DIRECTIONS),
                *(get_score(run, key) for key in FEATURE_TITLES),
                *(get_score(run, METRIC_PREFIX + name) for name in metric_names([run])),
            )
            if tile.value is not None
        ],
        facts=_facts(run),
    )


def _count_correct(section: RunSection) -> str:
    """Format the number of correct predictions for masked tokens as a sentence."""
    masked = [token for sentence in section.run.examples.sentences for token in sentence.tokens if token.masked]
    correct = sum(token.correct for token in masked)
    return f"{correct} of {len(masked)} masked word pieces are predicted correctly." if masked else ""


def _collapse(run: Run, several: bool) -> str | None:
    """Return the sentence about a collapse at the last logged update that has statistics of the outputs."""
    record = next((record for record in reversed(run.train) if record.outputs), None)
    sentence = None if record is None else describe_collapse(record.outputs)
    return f"{run.name}: {sentence}" if sentence and several else sentence


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return (label, value) for all facts about a run whose value is known."""
    summary = run.summary
    rates = [record.values["lr"] for record in run.train if "lr" in record.values]
    waits = [record.values["data_wait"] for record in run.train if "data_wait" in record.values]
    facts = [
        ("Model", summary.model),
        ("Parameters", wording.format_count(summary.parameters) if summary.parameters else None),
        ("Updates", wording.format_count(update_count(run))),
        ("State", _state(run)),
        ("Batch size", wording.format_count(summary.batch_size) if summary.batch_size else None),
        ("Samples seen", wording.format_count(summary.samples) if summary.samples else None),
        ("Datasets", ", ".join(summary.datasets)),
        ("Learning rate", f"{wording.format_setting(max(rates))} (maximum)" if rates else None),
        ("Precision", summary.precision),
        ("Device", summary.device),
        ("Training time", wording.format_duration(training_seconds(run)) if training_seconds(run) else None),
        ("Samples per second", wording.format_count(samples_per_second(run)) if samples_per_second(run) else None),
        ("Data wait", f"{wording.format_percent(sum(waits) / len(waits))} of the time" if waits else None),
        ("Bad records", _bad_records(run)),
        ("Scores computed on", wording.format_samples(run.evaluation.samples) if run.evaluation else None),
        ("Skipped updates", wording.format_count(run.issues.skipped_updates) if run.issues.skipped_updates else None),
        ("mmf_flava", summary.version),
        ("Files read", ", ".join(file for file in FILES if file not in run.missing)),
    ]
    return [(label, value) for label, value in facts if value and value != wording.NO_VALUE]


def _state(run: Run) -> str | None:
    """Return the progress of a run without a summary, i.e. one that has not finished; None for a finished run."""
    if SUMMARY not in run.missing or not run.train:
        return None
    total = run.recipe.get("training.max_updates", "")
    return f"at update {wording.format_count(run.train[-1].update)}" + (
        f" of {wording.format_count(int(total))}, not finished" if total.isdecimal() else ", not finished"
    )


def _bad_records(run: Run) -> str | None:
    datasets = [
        f"{name}: " + wording.join_words([f"{wording.format_count(n)} {reason}" for reason, n in reasons.items()])
        for name, reasons in run.issues.bad_records.items()
    ]
    return "; ".join(datasets) or None


def _comparison(runs: Sequence[Run]) -> list[ComparisonRow]:
    """Return the rows of the comparison table: scores, final losses, differing facts and differing recipe keys."""
    rows: list[ComparisonRow] = []
    for heading, group in (
        ("Scores", _score_rows(runs)),
        ("Final training losses", _loss_rows(runs)),
        ("Differences", _fact_rows(runs)),
        ("Differing recipe keys", _key_rows(runs)),
    ):
        if group := [row for row in group if any(cell != wording.NO_VALUE for cell in row.cells)]:
            rows += [ComparisonRow(heading, []), *group]
    return rows


def _score_rows(runs: Sequence[Run]) -> list[ComparisonRow]:
    labels = {"accuracy": "Zero-shot accuracy"}
    labels |= {f"{key}_r{depth}": f"{label} R@{depth}" for key, label in DIRECTIONS.items() for depth in (1, 5, 10)}
    labels |= FEATURE_TITLES
    labels |= {METRIC_PREFIX + name: get_score(runs[0], METRIC_PREFIX + name).title for name in metric_names(runs)}
    rows = []
    for key, label in labels.items():
        scores = [get_score(run, key) for run in runs]
        cells = [
            wording.format_percent(score.value) + ("" if score.final or score.value is None else " (val)")
            for score in scores
        ]
        # final scores are not compared with validation scores
        comparable = len({score.final for score in scores if score.value is not None}) == 1
        best = index_of_best([score.value for score in scores]) if comparable else None
        rows.append(ComparisonRow(label, cells, best))
    return rows


def _loss_rows(runs: Sequence[Run]) -> list[ComparisonRow]:
    rows = []
    for name in loss_names(runs):
        last = [values[1] if (values := first_and_last_loss(run, name)) else None for run in runs]
        title = wording.LOSSES.get(name, (name, ""))[0]
        rows.append(ComparisonRow(title, [wording.format_loss(value) for value in last]))
    return rows


def _fact_rows(runs: Sequence[Run]) -> list[ComparisonRow]:
    def differs(label: str, cells: list[str]) -> bool:
        return len(set(cells) - {wording.NO_VALUE}) > 1 or (label in OPTIONAL_FACTS and len(set(cells)) > 1)

    return [ComparisonRow(label, cells) for label, cells in _shared_facts(runs).items() if differs(label, cells)]


def _key_rows(runs: Sequence[Run]) -> list[ComparisonRow]:
    rows = [
        ComparisonRow(key, [wording.NO_VALUE if value is None else value for value in values], key=True)
        for key, values in diff_recipes([run.recipe for run in runs]).items()
    ]
    if len(rows) > MAX_KEYS:
        rows = [*rows[:MAX_KEYS], ComparisonRow(f"and {len(rows) - MAX_KEYS} more", ["…"] * len(runs))]
    return rows


def _shared_facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return label -> one value per run, for each fact that at least one run has."""
    facts = [dict(_facts(run)) for run in runs]
    labels = [label for run_facts in facts for label in run_facts if label != "Files read"]
    return {label: [run_facts.get(label, wording.NO_VALUE) for run_facts in facts] for label in labels}
