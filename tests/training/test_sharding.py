"""``torchrun`` with the unmodified ``mmf_run``: two processes do what one does."""

import json
import os
import subprocess

import pytest
from safetensors.torch import load_file

from tests.conftest import DEMO, SCRIPTS, SHORT

QUIET = [f"evaluation.{name}=null" for name in ("examples", "zero_shot", "retrieval")]
OPTIONS = [*SHORT, *QUIET, "training.log_interval=1", "training.checkpoint_interval=10", "training.max_updates=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """``run(name, processes, *options, sharding=...)`` trains in a folder of that name and returns the folder."""
    root = tmp_path_factory.mktemp("runs")

    def run(name: str, processes: int, *options: str, sharding: str = "ddp"):
        start = [SCRIPTS / "torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        sharding = sharding if processes > 1 else "none"
        command = [*start, SCRIPTS / "mmf_run", f"config={DEMO}", *OPTIONS, f"training.sharding={sharding}"]
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
def alone(run):
    return run("alone", 1)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["update"], name): value
        for line in lines
        if line["split"] == "train"
        for name, value in line["losses"].items()
    }


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_as_one(run, alone, sharding):
    """The same global batches: losses within 2e-6 or, where they are small, 5e-7; so are weights, with two exceptions.

    The bias of a key adds the same number to all of a query's scores, so its gradient is rounding noise, which Adam
    divides by its own size. So it does with the small gradients of words that came once.
    """
    both = run(sharding, 2, sharding=sharding)
    assert losses(both) == pytest.approx(losses(alone), rel=2e-6, abs=5e-7)
    assert len(losses(both)) > 40
    ours, theirs = (
        load_file(folder / "checkpoints" / "update_00000020" / "model.safetensors") for folder in (both, alone)
    )
    assert ours.keys() == theirs.keys()
    far = {key: (ours[key] - theirs[key]).abs().max().item() for key in ours if not key.endswith("qkv.bias")}
    words = far.pop("flava.text_encoder.word_embeddings.weight")
    assert words < 3e-5
    assert max(far.values()) < 1e-6, {key: value for key, value in far.items() if value > 1e-6}


def test_another_number_of_processes_goes_on(run, alone):
    """1 -> 2 -> 1 processes in one folder, the two with shards: the same curve as 1 alone."""
    for processes, updates in ((1, 5), (2, 10), (1, 20)):
        options = [f"training.max_updates={updates}", "scheduler.params.num_training_steps=20"]
        folder = run("elastic", processes, *options, "checkpoint.resume=true", sharding="fsdp")
    assert losses(folder) == pytest.approx(losses(alone), rel=2e-6, abs=5e-7)


def test_separate_models_are_refused(cache, tmp_path):
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
