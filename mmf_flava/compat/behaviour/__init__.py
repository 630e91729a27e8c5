"""Patches with FLAVA's defaults, checks and messages, active only in FLAVA's runs (see ``compat.flava_run``).

In other runs the original function of MMF is called. The exceptions are ``env.plugin``, which registers FLAVA's models,
trainers and datasets with MMF in every run, and ``dataset_config.defaults``, which concerns only FLAVA's datasets and
processors.
"""

from mmf_flava.compat.behaviour import (  # noqa: F401 - each module registers its patches
    bad_entries,
    command_line,
    configuration,
    dataset_config,
    datasets,
    devices,
    env,
    logger,
    metrics,
    mmf_data,
    overrides,
    pickles,
    predictions,
    processes,
    published_data,
    recipe_files,
    secrets,
    trainers,
    transformers,
    warnings,
)
