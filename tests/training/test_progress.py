"""Records of metrics.jsonl: rates of known batches with a simulated clock."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.models.flops import batch_flops
from mmf_flava.training import progress as module
from mmf_flava.training.progress import Progress, count_tokens, format_flops
from mmf_flava.training.update_losses import UpdateLosses
from tests.models.conftest import sample_list
from tests.models.test_pretraining import build

CONFIG = OmegaConf.create({"training": {"max_updates": 4, "tensorboard": False}})


def test_rates_are_counts_per_second(tmp_path: Path, tiny, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    now, messages = [0.0], []
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(mmf_api, "log", messages.append)
    pairs.sample_id = ["a", "b", "c"]
    model = build(tiny)
    progress = Progress(tmp_path, CONFIG, WandbConfig(), model, start=0, seconds=0.0)
    for update, waited in ((1, 3), (2, 1)):
        now[0] += 5 if update == 1 else 2  # the wait for the first batch is not counted
        progress.add_batch(pairs, waited)
        losses = UpdateLosses(None, [pairs], torch.device("cpu"))
        losses.add({"train/pmd/flava_itm": torch.tensor([float(update)])})
        progress.add_update(losses)
    progress.report(lr=0.1)
    now[0] += 1
    progress.report(lr=0.1, weight_decay=0.04)
    progress.close()
    record, scheduled = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert "weight_decay" not in record and scheduled["weight_decay"] == 0.04
    assert "weight decay" not in messages[0] and ", lr 1.00e-01, weight decay 0.04, " in messages[1]
    assert record["samples_per_second"] == 1.5  # 6 samples in 4 seconds
    assert record["tokens_per_second"] == 12.5  # 2 * (12 patches + 5 + 3 + 5 tokens) without padding
    assert record["flops_per_second"] == pytest.approx(batch_flops(tiny, model.needs, pairs) / 2, rel=1e-3)
    assert record["data_wait"] == 0.25 and record["losses"] == {"flava_itm": 1.5} and record["update"] == 2
    assert record["first_batch_seconds"] == 3 and "first_batch_seconds" not in scheduled
    assert "2 samples/s, 12 tokens/s" in messages[0] and "data wait 25.0%, first batch after 3.0 s" in messages[0]
    assert "first batch" not in messages[1]


def test_count_tokens_of_images_and_texts(pairs) -> None:
    assert count_tokens(sample_list("images", image_patch_mask=pairs["image_patch_mask"])) == 12
    assert count_tokens(sample_list("texts", input_mask=pairs["input_mask"])) == 13


def test_flops_are_formatted_with_three_digits() -> None:
    texts = [format_flops(flops) for flops in (3.2149e13, 3.2149e10, 4.321e14, 0)]
    assert texts == ["32.1 TFLOP/s", "32.1 GFLOP/s", "432 TFLOP/s", "0 GFLOP/s"]


class Distilled:
    """A model whose outputs have the given information at each report."""

    def __init__(self, *information: float) -> None:
        self.information = iter(information)

    def output_statistics(self) -> dict[str, float]:
        return {"teacher_entropy": 2.5, "teacher_information": next(self.information)}


@pytest.mark.parametrize(
    ("first", "information", "warnings"),
    [(0, (0.001, 0.5, 0.001, 0.0), 1), (9, (0.001, 0.5), 1), (9, (0.5, 0.02), 0)],
)
def test_outputs_are_logged_and_a_collapse_once(tmp_path, monkeypatch, first, information, warnings) -> None:
    messages: list[str] = []
    monkeypatch.setattr(mmf_api, "log", messages.append)
    config = OmegaConf.create({"training": {"max_updates": 40, "tensorboard": False}})
    progress = Progress(tmp_path, config, WandbConfig(), Distilled(*information), start=first, seconds=0.0)
    for _ in information:
        progress.report(lr=0.1)
        progress.update += 4  # the first report may be in the first tenth of the run
    progress.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["outputs"]["teacher_information"] for record in records] == list(information)
    assert all("teacher_entropy 2.500" in message for message in messages if message.startswith("update"))
    found = [message for message in messages if message.startswith("Warning: The teacher's output hardly depends")]
    assert len(found) == warnings and (not found or first or messages.index(found[0]) == 3)
