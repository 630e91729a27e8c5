"""Reads of a run folder while a process saves to it: ``python -m tests.faults.concurrent_reads`` counts errors.

``max_to_keep`` is 1, and the saves follow each other without a pause, so checkpoints are removed while they are read.
``test_concurrent_reads.py`` runs a small version.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.config.model import (
    CodebookConfig,
    FlavaConfig,
    ImageEncoderConfig,
    LossConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
)
from mmf_flava.config.run import CheckpointConfig
from mmf_flava.convert import convert
from mmf_flava.data.processor_files import read_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.files import atomic
from mmf_flava.files.checkpoint_names import parse_name
from mmf_flava.models.pretraining import FlavaPretraining
from mmf_flava.report import write_report
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.initial_weights import load_initial_weights
from mmf_flava.weights.sources import read_weights

SIZE = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "mlp_size": 16}


def build() -> nn.Module:
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    config = FlavaConfig(
        image_encoder=ImageEncoderConfig(**SIZE, image_size=4, patch_size=2),
        text_encoder=TextEncoderConfig(**SIZE, vocab_size=11, max_length=6),
        multimodal_encoder=MultimodalEncoderConfig(**SIZE),
        projection_size=4,
        codebook=CodebookConfig(vocab_size=5),
        losses=[LossConfig("flava_itm", 1.0)],
    )
    model = FlavaPretraining(OmegaConf.structured(config))
    model.build()
    model.init_losses()
    return model


def save(folder: CheckpointFolder, model: nn.Module, update: int) -> None:
    """Save a checkpoint whose weights, mean and state are ``update``."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(update)
    processors = SavedProcessors("", image_size=4, mean=(update,) * 3, std=(1, 1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    folder.save(update, model, optimizer, {}, best=update % 5 == 0, processors=processors)
    atomic.write_json(folder.folder.parent / "summary.json", {"updates": update})
    with open(folder.folder.parent / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"update": update, "split": "train", "losses": {"flava_itm": 1 / update}}) + "\n")


def save_until_killed(run: Path, model: nn.Module, background: bool) -> None:
    """Save checkpoints back to back; every third update is saved twice, as after a resume."""
    folder = CheckpointFolder(run, max_to_keep=1, background=background, log=lambda _: None)
    for update in range(6, sys.maxsize):
        for _ in range(2 if update % 3 == 0 else 1):
            save(folder, model, update)


def single_value(tensors: dict[str, Tensor]) -> int:
    """Return the value of all weights; they differ if the tensors are from two checkpoints."""
    # the logit scale is saved clamped
    floats = [x for name, x in tensors.items() if x.is_floating_point() and not name.endswith("logit_scale")]
    values = {value for tensor in floats for value in tensor.unique().tolist()}
    assert len(values) == 1, values
    return int(values.pop())


def readers(run: Path, work: Path) -> dict[str, Callable[[], int]]:
    """Return the readers of a run folder. Each returns the update that it read."""
    model = build()

    def load(**options: object) -> int:
        reset = {"all": True, "optimizer": False, "counts": False}
        section = {"resume": False, "resume_best": False, "resume_file": None, "resume_pretrained": False}
        config = OmegaConf.create({"checkpoint": {**section, "reset": reset, **options}})
        load_initial_weights(model, config, CheckpointFolder(run, log=lambda _: None), CheckpointConfig())
        return single_value(dict(model.named_parameters()))

    def read_mean(name: str) -> int:
        mean = read_processors(run / name).mean
        assert mean is not None
        return int(mean[0])

    def convert_run() -> int:
        file = work / "converted.safetensors"
        convert(run, file, "mmf_flava", force=True)
        return single_value(load_file(file))

    def report() -> int:
        page = write_report([run], work / "report.html")
        assert page.stat().st_size > 10_000
        return int(json.loads((run / "summary.json").read_text())["updates"])

    return {
        "evaluation of the run": lambda: load(resume=True),
        "evaluation of its best": lambda: load(resume=True, resume_best=True),
        "resume_file": lambda: load(resume_file=str(run / "checkpoints" / "latest")),
        "weights of the run": lambda: single_value(read_weights(run).tensors),
        "weights of latest": lambda: single_value(read_weights(run / "checkpoints" / "latest").tensors),
        "weights of best": lambda: single_value(read_weights(run / "checkpoints" / "best").tensors),
        "processors of the run": lambda: read_mean(""),
        "processors of latest": lambda: read_mean("checkpoints/latest"),
        "conversion": convert_run,
        "report": report,
    }


def count_errors(folder: Path, reads: int, background: bool = False) -> Counter:
    """Read a run folder ``reads`` times, with each reader in turn, while another process saves to it.

    Returns:
        ``whole``: reads of one complete checkpoint that was not older than the newest one at the start of the read;
        ``checkpoints``: number of different checkpoints; all other keys are errors.
    """
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    run, counts, updates, model = folder / "run", Counter(), set(), build()
    checkpoints = CheckpointFolder(run, max_to_keep=1, log=lambda _: None)
    save(checkpoints, model, 5)
    saver = multiprocessing.get_context("fork").Process(target=save_until_killed, args=(run, model, background))
    saver.start()
    try:
        functions = readers(run, folder)
        for number in range(reads):
            name = list(functions)[number % len(functions)]
            pointer = run / "checkpoints" / ("best" if "best" in name else "latest")
            newest = parse_name(Path(pointer.read_text().partition(" ")[0]))[0]
            try:
                update = functions[name]()
                assert update >= newest, f"read update {update} instead of {newest}"
            except Exception as error:
                if not counts[f"{name}: {type(error).__name__}"]:
                    traceback.print_exc()
                counts[f"{name}: {type(error).__name__}"] += 1
            else:
                counts["whole"] += 1
                updates.add(update)
        assert saver.is_alive()
    finally:
        assert saver.pid is not None
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
    return counts + Counter(checkpoints=len(updates))


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m tests.faults.concurrent_reads", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--reads", type=integer(1), default=1200, help="number of reads (default: %(default)s)")
    options = parser.parse_args(arguments)
    failed = False
    for background in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            counts = count_errors(Path(folder), options.reads // 2, background)
        passed = counts["whole"] == options.reads // 2
        print(json.dumps({"test": "reads while saving", "background": background, **counts, "passed": passed}))
        failed |= not passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
