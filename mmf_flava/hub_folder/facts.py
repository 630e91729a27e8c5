"""What is known about weights: the files of the run that they are from. Nothing is estimated or inferred."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import NAME, parse_name
from mmf_flava.files.hub import NAME as HUB_NAME
from mmf_flava.report.recipe import CONFIG, read_recipe
from mmf_flava.report.run import SUMMARY, Summary, read_summary
from mmf_flava.report.values import as_int, as_list, as_mapping, as_number, as_text, read_json

DATA = "data.json"


@dataclass(frozen=True)
class DatasetPart:
    """A part of a dataset, with the licence in the manifest of its preparation, or None."""

    dataset: str
    split: str
    name: str
    counts: dict[str, int]
    licence: str | None


@dataclass(frozen=True)
class CardFacts:
    """Facts about weights. Fields that are not known are empty or None.

    Attributes:
        update: the training update of the checkpoint.
        evaluations: contents of the run's files of scores that were measured with these weights.
        other_scores: whether the run has scores of other weights, e.g. of another update.
        records: dataset -> split -> number of records.
        recipe: dotted key -> value, without local paths.
        base_model: Hugging Face model ID of the initial weights.
        averaged: whether the weights are averages (``training.ema``).
        missing_heads, skipped: pretraining heads that the weights lack, and tensors that the format does not have.
    """

    name: str
    model: FlavaConfig
    parameters: int
    update: int | None = None
    summary: Summary = field(default_factory=Summary)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    other_scores: bool = False
    records: dict[str, dict[str, int]] = field(default_factory=dict)
    parts: list[DatasetPart] = field(default_factory=list)
    recipe: dict[str, str] = field(default_factory=dict)
    base_model: str | None = None
    averaged: bool = False
    missing_heads: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def find_run(source: str | Path, file: Path) -> Path | None:
    """Return the run folder that weights were read from; None if they are not from a run.

    Args:
        source: the source of the weights.
        file: the weights file.
    """
    checkpoint = file.parent
    candidates = [Path(source).expanduser()]
    if NAME.fullmatch(checkpoint.name):
        candidates.append(checkpoint.parent.parent)
    return next((folder for folder in candidates if (folder / CONFIG).is_file()), None)


def collect_facts(source: str | Path, file: Path, averaged: bool, **known: Any) -> CardFacts:
    """Collect the facts about weights from the run that they are from.

    Args:
        source, file: see ``find_run``.
        averaged: whether the weights are averages.
        known: other fields of ``CardFacts``.
    """
    run = find_run(source, file)
    if run is None:
        name = str(source)
        is_id = HUB_NAME.fullmatch(name) is not None and "/" in name and not Path(name).exists()
        return CardFacts(**known, base_model=name if is_id else None, averaged=averaged)
    update = parse_name(file.parent)[0] if NAME.fullmatch(file.parent.name) else None
    recipe = read_recipe(run)
    found = [content for path in sorted(run.glob("evaluation*.json")) if (content := read_json(path))]
    measured = [
        content
        for content in found
        if as_int(content.get("update")) == update is not None
        and (recipe.get("evaluation.ema") == "true") == averaged
        and content.get("split") is not None
    ]
    records, parts = _read_data(run)
    return CardFacts(
        **known,
        update=update,
        summary=read_summary(run / SUMMARY),
        evaluations=measured,
        other_scores=len(measured) < len(found),
        records=records,
        parts=parts,
        recipe=recipe,
        base_model=_base_model(recipe),
        averaged=averaged,
    )


def _read_data(run: Path) -> tuple[dict[str, dict[str, int]], list[DatasetPart]]:
    records: dict[str, dict[str, int]] = {}
    parts: list[DatasetPart] = []
    for dataset, splits in (read_json(run / DATA) or {}).items():
        for split, entry in as_mapping(splits).items():
            if (count := as_int(as_mapping(entry).get("records"))) is not None:
                records.setdefault(dataset, {})[split] = count
            for part in map(as_mapping, as_list(as_mapping(entry).get("parts"))):
                counts = {key: int(n) for key, v in as_mapping(part.get("counts")).items() if (n := as_number(v))}
                name = as_text(part.get("name")) or "unnamed"
                parts.append(DatasetPart(dataset, split, name, counts, as_text(part.get("licence"))))
    return records, parts


def _base_model(recipe: dict[str, str]) -> str | None:
    """Return the Hugging Face model ID of the initial weights of all encoders."""
    keys = ("checkpoint.resume_zoo", f"model_config.{recipe.get('model')}.pretrained")
    values = (recipe.get(key, "") for key in keys)
    return next((v for v in values if "/" in v and HUB_NAME.fullmatch(v) and not Path(v).exists()), None)


def check_licence(text: str) -> str:
    """Return the identifier of a licence for the Hub's front matter, such as ``cc-by-4.0``.

    Raises:
        UserError: the text is not an identifier.
    """
    if not text or not all(char.isalnum() or char in "-.+_" for char in text):
        raise UserError(f"--license: {text!r} is not the identifier of a licence. Write it as in bsd-3-clause.")
    return text.lower()
