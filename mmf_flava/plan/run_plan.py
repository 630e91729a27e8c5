"""The plan of a run: what it needs, in lines to print, and what is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.schedule import depends_on_data
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.errors import UserError
from mmf_flava.plan.datasets import DatasetPlan, open_datasets, plan_datasets
from mmf_flava.plan.learning_rate import plan_learning_rate
from mmf_flava.plan.missing import find_missing
from mmf_flava.plan.report import count_lines, data_lines, disk_line, memory_line, time_line, training_lines
from mmf_flava.plan.timing import Timing, silence, time_updates
from mmf_flava.plan.wrong_keys import find_wrong_keys
from mmf_flava.training.memory import FP32, MemoryEstimate, estimate_memory


def make_plan(recipe: str, overrides: Sequence[str], processes: int, timed: bool) -> tuple[list[str], list[str]]:
    """Return the lines of the plan, and a message for everything that is missing or wrong.

    Args:
        timed: whether to run a few updates to measure time and memory. They are not run if something is missing.
    """
    setup_imports()
    wrong, config = find_wrong_keys(recipe, overrides)
    problems = list(wrong)
    if not problems:
        try:
            with silence():
                config = read_recipe(recipe, overrides)
        except UserError as error:
            return [], [str(error)]
    if config is None:
        return [], problems
    registry.register("config", config)  # builders and error messages read it
    if config.training.trainer != "flava":
        problems.append(
            f"training.trainer: {config.training.trainer} is not supported by mmf_flava.plan. Set it to flava."
        )
        return [], problems
    problems += find_missing(config)
    lines = [f"Plan of {recipe}: {config.model} on {config.datasets.replace(',', ', ')}"]
    plans: list[DatasetPlan] = []
    with silence():
        datasets, invalid = open_datasets(config)
    if not problems:  # otherwise, these are consequences of what is missing
        problems += invalid
    if not wrong and "train" in config.run_type and len(datasets["train"]) == len(config.datasets.split(",")):
        plans = plan_datasets(config, datasets)
    lines += ["Data:", *(data_lines(plans) or count_lines(config))]
    if plans or (not wrong and not depends_on_data(config)):
        lines += training_lines(config, plan_learning_rate(config))
    estimate = estimate_memory(config, processes) if config.model in ("flava", "flava_dino") and not wrong else None
    timing = _time(recipe, overrides, config, processes, problems) if timed and plans and not problems else None
    lines.append(memory_line(estimate, timing))
    if checkpoint := timing.checkpoint if timing is not None else _checkpoint_bytes(config, estimate):
        line, problem = disk_line(config, checkpoint, Path(str(config.env.save_dir)).expanduser().absolute())
        lines.append(line)
        problems += [problem] if problem is not None else []
    if timing is not None:
        lines.append(time_line(config, plans, timing, processes))
    return lines, list(dict.fromkeys(problems))


def _time(recipe: str, overrides: Sequence[str], config: Any, processes: int, problems: list[str]) -> Timing | None:
    try:
        return time_updates(recipe, overrides, config, processes, _approximate_parameters(config))
    except UserError as error:
        problems.append(str(error))
        return None


def _approximate_parameters(config: Any) -> int:
    """Return the approximate number of parameters of a model of mmf_flava; 0 for other models."""
    if config.model not in MODELS:
        return 0
    section, total = config.model_config[config.model], 0
    for name in ("image_encoder", "text_encoder", "multimodal_encoder"):
        if (encoder := section.get(name)) is not None:
            total += encoder.num_layers * (4 * encoder.hidden_size**2 + 2 * encoder.hidden_size * encoder.mlp_size)
    if (text := section.get("text_encoder")) is not None:
        total += text.vocab_size * text.hidden_size
    if (head := section.get("head")) is not None:  # of DINO
        total += head.hidden_size * (section.image_encoder.hidden_size + head.hidden_size + head.bottleneck_size)
        total += head.bottleneck_size * head.out_dim
    return int(total)


def _checkpoint_bytes(config: Any, estimate: MemoryEstimate | None) -> int:
    """Return the bytes of a checkpoint: weights, two moments and, if they are enabled, averages of the weights."""
    copies = 4 if OmegaConf.select(config, "training.ema.enabled") else 3
    if estimate is not None and config.training.sharding != "fsdp":
        return estimate.weights + estimate.optimizer + estimate.weights * (copies - 3)
    return copies * FP32 * _approximate_parameters(config)
