"""Small GLUE files in the formats of the zips, Microsoft's MRPC and the hub.

The toy tasks are easy to learn: a sentence is acceptable if it contains "the"; a pair is similar if its second sentence
starts with "same".
"""

import json
import re
from pathlib import Path

import numpy as np

from mmf_flava.data.glue_tasks import TASKS, GlueTask

WORDS = ["string", "module", "list", "number", "value", "object", "class", "name", "file", "type"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HEADERS = {
    "cola": "source label - sentence",
    "mnli": "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2",
    "mrpc": "Quality,#1 ID,#2 ID,#1 String,#2 String",
    "qnli": "index question sentence label",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "rte": "index sentence1 sentence2 label",
    "sst2": "sentence label",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
}


def rows(task: GlueTask, count: int, seed: int) -> list[tuple[list[str], int | float]]:
    """Return (texts, label or score) of ``count`` examples."""
    generator = np.random.default_rng(seed)
    examples = []
    for n in range(count):
        first, second = (list(generator.choice(WORDS, 4)) for _ in range(2))
        target: int | float = n % task.num_labels if task.labels else round(5 * (n % 6) / 5, 3)
        if len(task.columns) == 1:
            first[0] = "the" if target else "of"
        else:
            second[0] = "same" if (target == 1 if task.labels else target > 2.5) else "other"
        examples.append((['a "' + " ".join(first), " ".join(second) + " é"][: len(task.columns)], target))
    return examples


def _fields(task: GlueTask, texts: list[str], label: str, n: int, header: list[str]) -> list[str]:
    filled = {**dict(zip(task.columns, texts, strict=True)), task.target: label}
    return [filled.get(name, f"{name.strip('#')}-{n}") for name in header]


def write_tsv(folder: Path, name: str, **counts: int) -> Path:
    """Write TSV files of ``counts`` examples per split to the task's folder and return the folder."""
    task = TASKS[name]
    task_folder = folder / task.folder
    task_folder.mkdir(parents=True, exist_ok=True)
    family = name.partition("_")[0]
    for split, count in counts.items():
        for number, stem in enumerate(task.file_stems(split)):
            header = re.split("," if family == "mrpc" else " ", HEADERS[family])
            if family == "mnli":
                header += {"train": ["label1"], "dev": [f"label{n}" for n in range(1, 6)], "test": []}[split]
                header += ["gold_label"] * (split != "test")
            elif split == "test":
                header = ["index", *(h for h in header if h in (*task.columns, "#1 ID", "#2 ID", "genre"))]
            lines = [] if family == "cola" and split != "test" else ["\t".join(header)]
            for n, (texts, target) in enumerate(rows(task, count, len(split) + number)):
                label = task.labels[int(target)] if task.labels else f"{target:.3f}"
                lines.append("\t".join(_fields(task, texts, label, n, header)))
            (task_folder / f"{stem}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return task_folder


def records(name: str, split: str, count: int) -> list[dict[str, object]]:
    """Return records as on the hub; test labels are -1."""
    task = TASKS[name]
    return [
        {**dict(zip(task.fields, texts, strict=True)), "label": -1 if split == "test" else target, "idx": n}
        for n, (texts, target) in enumerate(rows(task, count, len(split)))
    ]


def write_jsonl(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_vocabulary(folder: Path) -> Path:
    """Write a WordPiece vocabulary of the toy words and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*SPECIAL, *WORDS, '"', "a", "e", "the", "of", "same", "other"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return folder
