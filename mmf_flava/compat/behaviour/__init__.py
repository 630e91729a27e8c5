"""Defaults, checks and messages of FLAVA, which act in FLAVA's own runs only: see ``compat.flava_run``.

In every other run MMF's own function is called. The exception is ``env.plugin``, which registers FLAVA's names with
MMF in every run, so that a recipe can use them.
"""

from mmf_flava.compat.behaviour import (  # noqa: F401 - each module registers its patches
    command_line,
    configuration,
    datasets,
    env,
    logger,
    overrides,
    trainers,
    transformers,
    warnings,
)
