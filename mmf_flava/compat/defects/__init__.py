"""Fixes of errors in MMF and fairscale that stop or falsify any run.

They are applied to every run, FLAVA's or not, and each run lists them in its log.
"""

from mmf_flava.compat.defects import (  # noqa: F401 - each module registers its patches
    checkpoint,
    datasets,
    distributed,
    env,
    fairscale,
    multitasking,
    report,
    splits,
    training,
    updates,
)
