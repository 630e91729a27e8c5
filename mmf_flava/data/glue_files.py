"""GLUE's public files, read as they are: the zip's TSV, Microsoft's MRPC files, and JSONL or parquet of the hub."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mmf_flava.data.prepare.published import open_text, read_parquet
from mmf_flava.data.glue_tasks import COLA_COLUMNS, SCORES, GlueTask
from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
HUB_NAMES = {"train": ("train",), "dev": ("validation", "dev", "val"), "test": ("test",)}
MSR_FILES = {"train": "msr_paraphrase_train.txt", "dev": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")


class Example(NamedTuple):
    """One or two texts, the class's number or the score (None: the file has no labels), and file:line."""

    texts: tuple[str, ...]
    target: int | float | None
    place: str


class _Malformed(Exception):
    """A line that is no example; the message says why."""


Lines = Iterator[tuple[int, Callable[[], Example]]]  # number of a line, and what makes it an example or is malformed


def read_glue(data_dir: Path, task: GlueTask, split: str, max_bad_share: float | None = 0.01) -> list[Example]:
    """The examples of ``train``, ``dev`` or ``test`` in the order of the files.

    Lines that are no examples are left out and named in a warning (QQP has some).

    Args:
        data_dir: holds the files, or a folder of the task that does (``MRPC`` or ``mrpc``).
        max_bad_share: share of lines that may be left out; None: any. In a file without labels none may, for each of
            its lines is to be predicted.

    Raises:
        UserError: files are missing, have other columns, or have too many malformed lines.
    """
    return list(chain.from_iterable(_read(path, task, split, max_bad_share) for path in find(data_dir, task, split)))


def find(data_dir: Path, task: GlueTask, split: str) -> list[Path]:
    """The files of a split; UserError says which were looked for and where they can be had."""
    for folder in (data_dir / task.folder, data_dir / task.hub_folder, data_dir):
        found = [_of_stem(folder, split, stem) for stem in task.stems(split)]
        if all(found):
            return list(chain.from_iterable(found))
        if task.name == "mrpc" and (folder / MSR_FILES[split]).is_file():
            return [folder / MSR_FILES[split]]
    tsv = " and ".join(f"{task.folder}/{stem}.tsv" for stem in task.stems(split))
    hub = [f"{task.hub_folder}/{stem.replace(split, HUB_NAMES[split][0], 1)}" for stem in task.stems(split)]
    names = [tsv, *(" and ".join(name + ending for name in hub) for ending in (".jsonl", "-*.parquet"))]
    if task.name == "mrpc":
        names.insert(1, f"{task.folder}/{MSR_FILES[split]}")
    raise UserError(
        f"{data_dir} has no {split} split of {task.folder}: looked for {', '.join(names)}, with and without folder. "
        "GLUE's zips are at gluebenchmark.com/tasks, its parquet files on the Hugging Face hub as nyu-mll/glue; "
        "dataset_config.glue.data_dir names where they are."
    )


def _of_stem(folder: Path, split: str, stem: str) -> list[Path]:
    """TSV, else JSONL, else parquet, which may be in several files."""
    if (path := folder / f"{stem}.tsv").is_file():
        return [path]
    names = [stem.replace(split, name, 1) for name in HUB_NAMES[split]]
    for name in names:
        if (path := folder / f"{name}.jsonl").is_file():
            return [path]
    for name in names:
        if parts := sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*-of-*.parquet")]):
            return parts
    return []


def _read(path: Path, task: GlueTask, split: str, max_bad_share: float | None) -> list[Example]:
    examples, faults = [], []
    for number, make in _lines(path, task, split):
        try:
            examples.append(make())
        except _Malformed as error:
            faults.append(f"line {number} ({error})")
    total = len(examples) + len(faults)
    if not total:
        raise UserError(f"{path} has no examples of the {split} split: download it again.")
    unlabelled = any(example.target is None for example in examples)
    if faults and (unlabelled or (max_bad_share is not None and len(faults) > max_bad_share * total)):
        allowed = (
            "its lines are to be predicted, so none may be" if unlabelled else f"more than {max_bad_share} of them"
        )
        raise UserError(
            f"{path}: {len(faults)} of {total} lines are malformed, {allowed}: {_few(faults)}. Mend or delete them"
            + ("." if unlabelled else ", or raise dataset_config.glue.max_bad_share.")
        )
    if faults:
        logger.warning(f"{path}: {len(faults)} of {total} lines are malformed and left out: {_few(faults)}.")
    return examples


def _few(faults: list[str]) -> str:
    return ", ".join(faults[:3]) + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")


def _lines(path: Path, task: GlueTask, split: str) -> Lines:
    if path.suffix == ".parquet":
        return _records(path, task, split, enumerate(_parquet(path), start=1))
    if path.suffix == ".jsonl":
        return _records(path, task, split, _json_lines(path))
    return _tab_separated(path, task, split)


# ---------------------------------------------------------------------- TSV


def _tab_separated(path: Path, task: GlueTask, split: str) -> Lines:
    """Fields are as they stand between tabs: quotation marks are text."""
    with open_text(path) as file:
        lines = (
            (number, line.lstrip("\ufeff").rstrip("\r\n").split("\t")) for number, line in enumerate(file, start=1)
        )
        header: list[str] = list(COLA_COLUMNS)
        if task.name != "cola" or split == "test":
            header = next(lines, (0, []))[1]
        texts = [_column(path, header, name) for name in task.columns]
        target = header.index(task.target) if task.target in header else None
        if target is None and split != "test":
            _column(path, header, task.target)
        wanted = _msr_half(path, header, split) if path.name == MSR_FILES["train"] else None
        for number, fields in lines:
            if fields == [""]:
                continue
            if wanted is None or wanted(fields):
                yield number, partial(_from_fields, path, task, number, fields, len(header), texts, target)


def _column(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise UserError(
            f"{path} has no column '{name}', only {', '.join(header) or 'nothing'}: it is no file of GLUE's "
            f"{path.parent.name}, or was changed; download it again."
        )
    return header.index(name)


def _msr_half(path: Path, header: list[str], split: str) -> Callable[[list[str]], bool]:
    """Microsoft's training file has GLUE's dev split in it, whose pairs a list of ids names."""
    ids = next((ids for name in DEV_IDS if (ids := path.with_name(name)).is_file()), None)
    if ids is None:
        raise UserError(
            f"{path} holds MRPC's train and dev splits together, and {' or '.join(DEV_IDS)} beside it, which tells "
            "them apart, is missing: GLUE's download script on gluebenchmark.com/tasks gets it."
        )
    with open_text(ids) as file:
        dev = {tuple(line.split()) for line in file}
    columns = [_column(path, header, name) for name in ("#1 ID", "#2 ID")]
    return lambda fields: (tuple(fields[c] for c in columns if c < len(fields)) in dev) == (split == "dev")


def _from_fields(
    path: Path, task: GlueTask, number: int, fields: list[str], width: int, texts: list[int], target: int | None
) -> Example:
    if len(fields) != width:
        raise _Malformed(f"{len(fields)} fields instead of {width}")
    label = None if target is None else _target(task, fields[target])
    return Example(tuple(fields[column] for column in texts), label, f"{path.name}:{number}")


# ---------------------------------------------------------------------- JSONL and parquet


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from read_parquet(path)
    except UserError:  # pyarrow is missing
        raise
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise UserError(f"{path} cannot be read as parquet ({error}): download it again.") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError:
                    yield number, None


def _records(path: Path, task: GlueTask, split: str, records: Iterator[tuple[int, Any]]) -> Lines:
    for number, record in records:
        yield number, partial(_from_record, path, task, split, number, record)


def _from_record(path: Path, task: GlueTask, split: str, number: int, record: Any) -> Example:
    if not isinstance(record, dict):
        raise _Malformed("no JSON object")
    for name in task.fields:
        if not isinstance(record.get(name), str):
            raise _Malformed(f"no text in '{name}'")
    label = record.get("label")
    unlabelled = label is None or label in (-1, "-1")
    if unlabelled and split != "test":
        raise _Malformed("no label")
    return Example(
        tuple(record[name] for name in task.fields),
        None if unlabelled else _target(task, label),
        f"{path.name}:{number}",
    )


def _target(task: GlueTask, said: Any) -> int | float:
    """A class by its name or number, or a score."""
    if task.labels:
        if str(said) in task.labels:
            return task.labels.index(str(said))
        if isinstance(said, int) and 0 <= said < len(task.labels):
            return said
        raise _Malformed(f"label {said!r} instead of {' or '.join(task.labels)}")
    try:
        score = float(said)
    except (TypeError, ValueError):
        score = math.nan
    if not SCORES[0] <= score <= SCORES[1]:
        raise _Malformed(f"score {said!r} instead of a number from {SCORES[0]:g} to {SCORES[1]:g}")
    return score
