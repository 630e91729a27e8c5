"""Readers of GLUE's files: TSV from GLUE's zips, Microsoft's MRPC files, and JSONL or parquet from Hugging Face."""

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mmf_flava.data.glue_tasks import COLA_COLUMNS, SCORE_RANGE, GlueTask
from mmf_flava.data.prepare.source_files import open_text, read_parquet
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_json

logger = logging.getLogger(__name__)

HUB_NAMES = {"train": ("train",), "dev": ("validation", "dev", "val"), "test": ("test",)}
MSR_FILES = {"train": "msr_paraphrase_train.txt", "dev": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")


class Example(NamedTuple):
    """One GLUE example: one or two texts, the label or score (None if the file has no labels), file name and line."""

    texts: tuple[str, ...]
    target: int | float | None
    location: str


class MalformedLine(Exception):
    """Raised if a line of a GLUE file is malformed."""


# (line number, function that returns the example or raises MalformedLine)
ParsedLines = Iterator[tuple[int, Callable[[], Example]]]


def read_glue(data_dir: Path, task: GlueTask, split: str, max_bad_share: float | None = 0.01) -> list[Example]:
    """Read the examples of ``train``, ``dev`` or ``test`` in the order of the files.

    Malformed lines are skipped with a warning (QQP has some).

    Args:
        data_dir: folder that contains the files or the task's folder (for example ``MRPC`` or ``mrpc``).
        max_bad_share: maximum fraction of malformed lines; None: no limit. Files without labels must not have any
            malformed lines, because GLUE expects a prediction for each line.

    Raises:
        UserError: files are missing, have unexpected columns, or have too many malformed lines.
    """
    files = find_files(data_dir, task, split)
    return list(chain.from_iterable(_read_examples(path, task, split, max_bad_share) for path in files))


def find_files(data_dir: Path, task: GlueTask, split: str) -> list[Path]:
    """Return the files of a split.

    Raises:
        UserError: a file of the split was not found.
    """
    for folder in (data_dir / task.folder, data_dir / task.hub_folder, data_dir):
        files = [_find_files_of_stem(folder, split, stem) for stem in task.file_stems(split)]
        if all(files):
            return list(chain.from_iterable(files))
        if task.name == "mrpc" and (folder / MSR_FILES[split]).is_file():
            return [folder / MSR_FILES[split]]
    if archives := sorted(path for path in data_dir.glob(f"{task.folder}*.zip")):
        raise UserError(f"{archives[0]}: the archive of {task.folder} is not unpacked. Unpack it in its folder.")
    tsv = " and ".join(f"{task.folder}/{stem}.tsv" for stem in task.file_stems(split))
    hub = [f"{task.hub_folder}/{stem.replace(split, HUB_NAMES[split][0], 1)}" for stem in task.file_stems(split)]
    names = [tsv, *(" and ".join(name + ending for name in hub) for ending in (".jsonl", "-*.parquet"))]
    if task.name == "mrpc":
        names.insert(1, f"{task.folder}/{MSR_FILES[split]}")
    raise UserError(
        f"{data_dir} has no {split} split of {task.folder}: expected {' or '.join(names)}. The files may also be "
        "directly in dataset_config.glue.data_dir. Download GLUE's zips from gluebenchmark.com/tasks or its parquet "
        "files from nyu-mll/glue on the Hugging Face hub, and set dataset_config.glue.data_dir to their folder."
    )


def _find_files_of_stem(folder: Path, split: str, stem: str) -> list[Path]:
    """Return the files called ``stem`` in ``folder``: the TSV file, otherwise the JSONL file or the parquet files."""
    if (path := folder / f"{stem}.tsv").is_file():
        return [path]
    names = [stem.replace(split, name, 1) for name in HUB_NAMES[split]]
    for name in names:
        if (path := folder / f"{name}.jsonl").is_file():
            return [path]
    for name in names:
        if files := sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*-of-*.parquet")]):
            return files
    return []


def _read_examples(path: Path, task: GlueTask, split: str, max_bad_share: float | None) -> list[Example]:
    examples, faults = [], []
    for number, build in _parse_lines(path, task, split):
        try:
            examples.append(build())
        except MalformedLine as error:
            faults.append(f"line {number} ({error})")
    total = len(examples) + len(faults)
    if not total:
        raise UserError(f"{path} has no examples of the {split} split. Download the file again.")
    unlabelled = any(example.target is None for example in examples)
    if faults and (unlabelled or (max_bad_share is not None and len(faults) > max_bad_share * total)):
        limit = (
            "but GLUE requires a prediction for each line" if unlabelled else f"more than max_bad_share {max_bad_share}"
        )
        raise UserError(
            f"{path}: {len(faults)} of {total} lines are malformed, {limit}: {_join_faults(faults)}. Correct them"
            + ("." if unlabelled else ", or increase dataset_config.glue.max_bad_share.")
        )
    if faults:
        logger.warning(f"{path}: {len(faults)} of {total} lines are malformed and skipped: {_join_faults(faults)}.")
    return examples


def _join_faults(faults: list[str]) -> str:
    return ", ".join(faults[:3]) + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")


def _parse_lines(path: Path, task: GlueTask, split: str) -> ParsedLines:
    if path.suffix == ".parquet":
        return _parse_records(path, task, split, enumerate(_read_parquet_records(path), start=1))
    if path.suffix == ".jsonl":
        return _parse_records(path, task, split, _read_json_lines(path))
    return _parse_tsv(path, task, split)


# ---------------------------------------------------------------------- TSV


def _parse_tsv(path: Path, task: GlueTask, split: str) -> ParsedLines:
    """Parse a TSV file. Quotation marks are literal text."""
    with open_text(path) as file:
        rows = ((number, line.lstrip("\ufeff").rstrip("\r\n").split("\t")) for number, line in enumerate(file, start=1))
        header: list[str] = list(COLA_COLUMNS)
        if task.name != "cola" or split == "test":
            header = next(rows, (0, []))[1]
        texts = [_find_column(path, header, name) for name in task.columns]
        target = header.index(task.target) if task.target in header else None
        if target is None and split != "test":
            _find_column(path, header, task.target)
        in_split = _msr_split_filter(path, header, split) if path.name == MSR_FILES["train"] else None
        for number, fields in rows:
            if fields == [""]:
                continue
            if in_split is None or in_split(fields):
                yield number, partial(_build_from_fields, path, task, number, fields, len(header), texts, target)


def _find_column(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise UserError(
            f"{path} has no column '{name}'. Its columns are: {', '.join(header) or 'none'}. Download GLUE's "
            f"{path.parent.name} again."
        )
    return header.index(name)


def _msr_split_filter(path: Path, header: list[str], split: str) -> Callable[[list[str]], bool]:
    """Return a function that tells, by the list of dev ids, whether a row of MRPC's training file is in ``split``."""
    ids = next((ids for name in DEV_IDS if (ids := path.with_name(name)).is_file()), None)
    if ids is None:
        raise UserError(
            f"{path} contains MRPC's train and dev splits, but the list of dev ids was not found. Download "
            f"{' or '.join(DEV_IDS)} to the same folder with GLUE's download script from gluebenchmark.com/tasks."
        )
    with open_text(ids) as file:
        dev = {tuple(line.split()) for line in file}
    columns = [_find_column(path, header, name) for name in ("#1 ID", "#2 ID")]
    return lambda fields: (tuple(fields[c] for c in columns if c < len(fields)) in dev) == (split == "dev")


def _build_from_fields(
    path: Path, task: GlueTask, number: int, fields: list[str], width: int, texts: list[int], target: int | None
) -> Example:
    if len(fields) != width:
        raise MalformedLine(f"expected {width} fields, got {len(fields)}")
    label = None if target is None else _parse_target(task, fields[target])
    return Example(tuple(fields[column] for column in texts), label, f"{path.name}:{number}")


# ---------------------------------------------------------------------- JSONL and parquet


def _read_parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from read_parquet(path)
    except UserError:  # pyarrow is missing
        raise
    except (ValueError, OSError) as error:  # pyarrow's errors are subclasses of these
        raise UserError(f"{path} cannot be read as parquet ({error}). Download the file again.") from error


def _read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, parse_json(line)
                except ValueError:
                    yield number, None


def _parse_records(path: Path, task: GlueTask, split: str, records: Iterator[tuple[int, Any]]) -> ParsedLines:
    for number, record in records:
        yield number, partial(_build_from_record, path, task, split, number, record)


def _build_from_record(path: Path, task: GlueTask, split: str, number: int, record: Any) -> Example:
    if not isinstance(record, dict):
        raise MalformedLine("not a JSON object")
    for name in task.fields:
        if not isinstance(record.get(name), str):
            raise MalformedLine(f"'{name}' is not a string")
    label = record.get("label")
    unlabelled = label is None or label in (-1, "-1")
    if unlabelled and split != "test":
        raise MalformedLine("'label' is missing")
    return Example(
        tuple(record[name] for name in task.fields),
        None if unlabelled else _parse_target(task, label),
        f"{path.name}:{number}",
    )


def _parse_target(task: GlueTask, value: Any) -> int | float:
    """Convert a class name, class index or score to the target of the task."""
    if task.labels:
        if str(value) in task.labels:
            return task.labels.index(str(value))
        if isinstance(value, int) and 0 <= value < len(task.labels):
            return value
        raise MalformedLine(f"expected label {' or '.join(task.labels)}, got {value!r}")
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not SCORE_RANGE[0] <= score <= SCORE_RANGE[1]:
        raise MalformedLine(f"expected a score from {SCORE_RANGE[0]:g} to {SCORE_RANGE[1]:g}, got {value!r}")
    return score
