"""Patches that MMF, fairseq, fairscale and torchvision require to import and work with current dependencies.

They are applied to every run, FLAVA's or not.
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
