"""``torchrun`` with ``mmf_run``: training on two processes equals training on one."""

import json
import os
import shutil
import subprocess

import pytest
from safetensors.torch import load_file

from tests.conftest import DEMO, SCRIPTS, SHORT

QUIET = [f"evaluation.{name}=null" for name in ("examples", "zero_shot", "retrieval")]
OPTIONS = [*SHORT, *QUIET, "training.log_interval=1", "training.checkpoint_interval=10", "training.max_updates=20"]
OPTIONS += ["scheduler.params.num_training_steps=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """``run(name, processes, *options, sharding=...)`` trains in the run folder ``name`` and returns its path."""
    root = tmp_path_factory.mktemp("runs")

    def run(name: str, processes: int, *options: str, sharding: str = "ddp"):
        launcher = [SCRIPTS / "torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        sharding = sharding if processes > 1 else "none"
        command = [*launcher, SCRIPTS / "mmf_run", f"config={DEMO}", *OPTIONS, f"training.sharding={sharding}"]
        result = subprocess.run(
            [*map(str, command), f"env.save_dir={root / name}", *options],
            env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return root / name

    return run


@pytest.fixture(scope="module")
def start(run):
    """A run of one process that ended after 5 updates."""
    return run("start", 1, "training.max_updates=5")


@pytest.fixture(scope="module")
def single(run, start):
    return run(shutil.copytree(start, start.with_name("single")).name, 1, "checkpoint.resume=true")


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["update"], name): value
        for line in lines
        if line["split"] == "train"
        for name, value in line["losses"].items()
    }


def test_first_updates_on_two_processes_equal_those_on_one(run, start):
    """[CLS] and position embeddings start at 0. LayerNorm amplifies their rounding, until they have grown."""
    first = losses(run("first", 2, "training.max_updates=4"))
    expected = {key: value for key, value in losses(start).items() if key[0] <= 4}
    assert len(expected) > 10 and first == pytest.approx(expected, rel=2e-6, abs=5e-7)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_like_one(run, start, single, sharding):
    """With the same global batches, losses differ by at most 2e-6 relative or 5e-7 absolute, and weights by 1e-6.

    There are two exceptions. The key bias adds a constant to all attention scores of a query, so its gradient is
    rounding noise, which Adam normalises. The same holds for the small gradients of rare words.
    """
    folder = shutil.copytree(start, start.with_name(sharding))
    sharded = run(folder.name, 2, "checkpoint.resume=true", sharding=sharding)
    assert losses(sharded) == pytest.approx(losses(single), rel=2e-6, abs=5e-7)
    assert len(losses(sharded)) > 40
    actual, expected = (
        load_file(folder / "checkpoints" / "update_00000020" / "model.safetensors") for folder in (sharded, single)
    )
    assert actual.keys() == expected.keys()
    differences = {
        key: (actual[key] - expected[key]).abs().max().item() for key in actual if not key.endswith("qkv.bias")
    }
    words = differences.pop("flava.text_encoder.word_embeddings.weight")
    assert words < 3e-5
    assert max(differences.values()) < 1e-6, {key: value for key, value in differences.items() if value > 1e-6}


def test_run_resumes_with_another_number_of_processes(run, single):
    """1 -> 2 -> 1 processes in one run folder, with fsdp on 2: the losses equal those of a single process."""
    for processes, updates in ((1, 5), (2, 10), (1, 20)):
        options = [f"training.max_updates={updates}"]
        folder = run("elastic", processes, *options, "checkpoint.resume=true", sharding="fsdp")
    assert losses(folder) == pytest.approx(losses(single), rel=2e-6, abs=5e-7)


def test_several_processes_without_sharding_raise_user_error(cache, tmp_path):
    command = [SCRIPTS / "torchrun", "--standalone", "--nproc_per_node=2", SCRIPTS / "mmf_run", f"config={DEMO}"]
    result = subprocess.run(
        [*map(str, command), *SHORT, f"env.save_dir={tmp_path}"],
        env={**os.environ, "MMF_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode != 0
    assert "training.sharding: none would train 2 separate models" in result.stderr
