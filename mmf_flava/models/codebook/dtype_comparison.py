"""Speed and accuracy of the dVAE encoder in its dtypes and memory formats."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from mmf_flava.config.model import CodebookConfig
from mmf_flava.models.codebook.build import changed_fraction, load_codebook
from mmf_flava.models.dtypes import DTYPES


@dataclass(frozen=True)
class DtypeResult:
    """Speed and accuracy of the dVAE encoder for one dtype and memory format."""

    dtype: str
    channels_last: bool
    seconds: float  # seconds per image
    changed: float  # fraction of the codes that differ from fp32


def compare_dtypes(config: CodebookConfig, images_N3hw: Tensor) -> Iterator[DtypeResult]:
    """Measure the dVAE encoder on the same images in every dtype and memory format; yield the results, fp32 first."""
    reference = load_codebook(replace(config, dtype="fp32", channels_last=False)).to(images_N3hw.device)
    for dtype in DTYPES:
        for channels_last in (False, True):
            codebook = load_codebook(replace(config, dtype=dtype, channels_last=channels_last)).to(images_N3hw.device)
            changed = changed_fraction(codebook, reference, images_N3hw)  # also serves as warm-up
            start = time.perf_counter()
            codebook(images_N3hw).sum().item()  # .item() synchronises host and device
            yield DtypeResult(dtype, channels_last, (time.perf_counter() - start) / len(images_N3hw), changed)
