"""Training with averages of the weights, uninterrupted and resumed, on one process or several."""

import copy
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from mmf_flava.config.run import EmaConfig
from mmf_flava.weights.weight_files import AVERAGES
from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")
EMA = EmaConfig(enabled=True, momentum=0.5, final_momentum=0.9, modules=["flava", "heads.mim"], start=2)


def averaged(weights=None, ema: EmaConfig = EMA, **options):
    trained = updater(toy(weights), ema=ema, **options)
    if options.get("precision") == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})
    return trained


def train(trained, first: int, last: int, rows: slice = slice(None)):
    for number in range(first, last):
        trained.accumulate(batch(KINDS[number % 3], number, rows))
        assert trained.step()
    return trained


def train_and_resume(folder: Path, rows: slice = slice(None), **options) -> dict:
    """Train 4 + 4 updates; return the states of the model and of the averages, and what the averages compute."""
    trained = train(averaged(**options), 0, 4, rows)
    saved = [trained.model_state(), trained.state_dict(), trained.schedule_state()]
    states = trained.average_state()
    if states:
        folder.mkdir(exist_ok=True)
        save_file(states, folder / AVERAGES)
    saved = copy.deepcopy(saved)
    if dist.is_initialized():
        dist.broadcast_object_list(saved)  # also waits for the file
    weights, moments, schedule = saved
    resumed = averaged(weights, **options)
    resumed.load_state_dict(moments)
    resumed.load_schedule_state(schedule)
    resumed.load_average_state(folder)
    results = {}
    for name, run in (("uninterrupted", trained), ("resumed", resumed)):
        train(run, 4, 8, rows)
        before = copy.deepcopy(run.model_state())
        with run.averaged(True):
            embeddings = run.engine.evaluated.eval().encode_image(batch("pmd")["image"]).detach()
        run.engine.module.train()
        results[name] = {"weights": before, "averages": copy.deepcopy(run.average_state())}
        results[name]["restored"] = copy.deepcopy(run.model_state())
        results[name]["embeddings"] = {"image": embeddings}
        train(run, 8, 9, rows)  # with the restored weights
        results[name]["later"] = run.model_state()
    return results
