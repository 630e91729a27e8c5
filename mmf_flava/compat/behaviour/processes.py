"""Patch that compares the recipes of all processes of a run."""

from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.compat.process_recipes import compare_recipes


@patch(
    "mmf_cli.run",
    what="before the process group is created, all processes compare their recipes",
    why="processes with different recipes train different models, wait for each other forever, or fail in collectives",
    since="MMF 1.0.0rc1",
    until="MMF sends the configuration of the first process to the others",
)
def one_recipe(module: Any) -> None:
    from torch import distributed

    @wrap(module, "distributed_init", only_if=flava_run.is_current)
    def distributed_init(original: Any, config: Any) -> int:
        if config.distributed.world_size > 1 and not distributed.is_initialized():
            compare_recipes(config)
        return original(config)
