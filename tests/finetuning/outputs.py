"""Readers of the files that a finetuning writes to its run folder."""

import json
from pathlib import Path

from torch import Tensor

from mmf_flava.files.checkpoint_names import BEST, read_pointer
from mmf_flava.weights.weight_files import read_safetensors


def lines(folder: Path, split: str) -> list[dict]:
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in written if line["split"] == split]


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def weights(folder: Path, pointer: str = BEST) -> dict[str, Tensor]:
    return read_safetensors(read_pointer(folder / "checkpoints" / pointer) / "model.safetensors")[0]
