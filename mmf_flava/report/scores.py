"""The figures that a run is judged by: from the final evaluation, or from the last validation where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmf_flava.report import wording
from mmf_flava.report.run import Evaluation, Run

DIRECTIONS = {"image_to_text": "Image → text", "text_to_image": "Text → image"}
TITLES = {"accuracy": "Zero-shot accuracy"} | {f"{key}_r1": f"{label} R@1" for key, label in DIRECTIONS.items()}


@dataclass(frozen=True)
class Score:
    """One figure between 0 and 1, and where it comes from."""

    title: str
    value: float | None
    chance: float | None = None
    notes: tuple[str, ...] = ()
    final: bool = False  # from evaluation.json


def score(run: Run, key: str) -> Score:
    """``key`` is "accuracy" or a recall such as "image_to_text_r1"."""
    title = TITLES.get(key, key)
    final = run.evaluation
    if final is not None:
        value = final.accuracy if key == "accuracy" else final.retrieval.get(key)
        if value is not None:
            chance = final.chance if key == "accuracy" else None
            return Score(title, value, chance, tuple(_notes(final, key, value)), final=True)
    for line in reversed(run.validation):
        value = line.accuracy if key == "accuracy" else line.retrieval.get(key)
        if value is not None:
            return Score(title, value, None, (f"validation at update {wording.count(line.update)}",))
    return Score(title, None)


def _notes(final: Evaluation, key: str, value: float) -> list[str]:
    """Out of how many, and against what chance."""
    if key == "accuracy":
        notes = []
        if final.count:
            notes.append(
                f"{wording.count(round(value * final.count))} of {wording.count(final.count)} {final.split} images"
            )
        if final.chance:
            notes.append(f"chance {wording.percent(final.chance, 0 if final.chance >= 0.01 else 2)}")
        return notes
    asked, found = ("images", "captions") if key.startswith("image_to_text") else ("captions", "images")
    several, among = final.retrieval.get(asked), final.retrieval.get(found)
    if several and among:
        return [f"{wording.count(several)} {final.split} {asked},", f"each among {wording.count(among)} {found}"]
    return [f"{final.split} split"]


def best(values: Sequence[float | None]) -> int | None:
    """Position of the highest value, if there is one that stands alone."""
    known = [value for value in values if value is not None]
    return values.index(max(known)) if len(known) > 1 and known.count(max(known)) == 1 else None


def updates(run: Run) -> int | None:
    """How many updates the weights have seen."""
    return run.summary.updates or (run.train[-1].update if run.train else None)


def time(run: Run) -> float | None:
    """Seconds of training."""
    if run.summary.seconds is not None:
        return run.summary.seconds
    return run.train[-1].values.get("time") if run.train else None


def speed(run: Run) -> float | None:
    """Samples per second, over the whole run."""
    if run.summary.samples and run.summary.seconds and run.summary.seconds > 0:
        return run.summary.samples / run.summary.seconds
    speeds = [line.values["samples_per_second"] for line in run.train if "samples_per_second" in line.values]
    return sum(speeds) / len(speeds) if speeds else None
