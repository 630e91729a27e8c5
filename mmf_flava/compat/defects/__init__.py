"""Fixes of errors in MMF and fairscale that stop a run or make its results wrong.

They are applied to all runs of MMF, not only FLAVA's. Each run lists the applied fixes in its log.
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
