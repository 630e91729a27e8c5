"""Patches needed to import and run MMF, fairseq, fairscale and torchvision with current dependencies.

They are applied to all runs of MMF, not only FLAVA's.
"""

from mmf_flava.compat.imports import (  # noqa: F401 - each module registers its patches
    checkpoint,
    demjson,
    fairseq,
    lightning,
    logger,
    omegaconf,
    torchaudio,
    torchtext,
    torchvision,
    transformers,
)
