"""The lines of metrics.jsonl: rates of known batches over a clock that the test moves."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.training import progress as module
from mmf_flava.training.flops import batch_flops
from mmf_flava.training.progress import Progress, operations, tokens
from tests.models.conftest import sample_list

CONFIG = OmegaConf.create({"training": {"max_updates": 4, "tensorboard": False}})


def test_rates_are_counts_by_the_time(tmp_path: Path, tiny, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], []
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(mmf_api, "log", said.append)
    pairs.sample_id = ["a", "b", "c"]
    needs = ["contrast", "mmm_image", "mmm_text", "itm"]
    progress = Progress(
        tmp_path, CONFIG, WandbConfig(), SimpleNamespace(settings=tiny, needs=needs), start=0, seconds=0.0
    )
    for update in (1, 2):
        now[0] += 2
        progress.batch({"train/pmd/flava_itm": torch.tensor([float(update)])}, pairs, waited=0.5)
        progress.step()
    progress.report(lr=0.1)
    progress.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["samples_per_second"] == 1.5  # 6 in 4 seconds
    assert line["tokens_per_second"] == 12.5  # twice 12 patches and 5 + 3 + 5 words, but no padding
    assert line["flops_per_second"] == pytest.approx(batch_flops(tiny, needs, pairs) / 2, rel=1e-3)
    assert line["data_wait"] == 0.25 and line["losses"] == {"flava_itm": 1.5} and line["update"] == 2
    assert "2 samples/s, 12 tokens/s" in said[0] and "wait 25.0%" in said[0]


def test_tokens_of_images_and_of_texts(pairs) -> None:
    assert tokens(sample_list("images", image_patch_mask=pairs["image_patch_mask"])) == 12
    assert tokens(sample_list("texts", input_mask=pairs["input_mask"])) == 13


def test_operations_are_said_with_three_digits() -> None:
    told = [operations(flops) for flops in (3.2149e13, 3.2149e10, 4.321e14, 0)]
    assert told == ["32.1 TFLOP/s", "32.1 GFLOP/s", "432 TFLOP/s", "0 GFLOP/s"]
