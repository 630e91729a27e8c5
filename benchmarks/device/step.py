"""Part ``step``: mmf_flava's training step in bf16, eager and compiled; changing text lengths; fp32 and TF32.

*Typical use*: captions padded to 20 tokens and cached image codes. *Same inputs*: 77 tokens and a running codebook, as
for Hugging Face's and torchmultimodal's models in their parts. Batches of texts are alike in both. Without another
note, torch's options are those of the trainer: no TF32, and no attention of cuDNN, which plans each new shape anew.
"""

import random
import statistics
import time
from typing import Any

import torch
from peers import sample_list

from device.context import Context
from device.models import build_batch, build_flava
from device.timing import seconds_per_call, synchronize
from device.training_step import StepBenchmark, TrainingStep
from mmf_flava.training.device import set_tf32

KINDS = ("pair", "image", "text")
PADDED = 77
TYPICAL = {"pair": (20, 16), "image": (PADDED, None), "text": (PADDED, None)}  # tokens, of which caption
LENGTHS = range(14, PADDED)


def run(context: Context) -> None:
    """Report all steps. Pairs have a profile, eager and compiled."""
    set_tf32(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    benchmark, size, large = StepBenchmark(context), context.pick(64, 2), context.pick(256, 3)

    def typical(kind: str, count: int = size) -> Any:
        return sample_list(kind, build_batch(context, count, *TYPICAL[kind]), cached=True)

    samples = {kind: typical(kind) for kind in KINDS}
    for kind in KINDS:
        file = "profile_eager.txt" if kind == "pair" else None
        build = build_flava(context, samples[kind])
        benchmark.measure(f"typical use, eager, {kind}", kind, build, size, file)
    build = build_flava(context, samples["pair"])
    name = "typical use, eager, pair, foreach AdamW and clipping"
    benchmark.measure(name, "pair", build, size, fused=False, max_norm=1.0)
    same = sample_list("pair", build_batch(context, size, PADDED), cached=False)
    for name, dtype in (("fp32", "fp32"), ("TF32", "fp32"), ("bf16", "bf16")):
        set_tf32(name == "TF32")
        build = build_flava(context, same, codebook=dtype)
        benchmark.measure(f"same inputs, eager, pair, codebook in {name}", "same inputs", build, size)
    set_tf32(False)
    same_image = sample_list("image", build_batch(context, size, PADDED), cached=False)
    build = build_flava(context, same_image, codebook="fp32")
    benchmark.measure("same inputs, eager, image, codebook in fp32", "same inputs, image", build, size)
    with context.attempt("changing lengths"):
        report_changing_lengths(context, size)
    for kind in context.pick(KINDS, KINDS[:1]):
        file = "profile_compiled.txt" if kind == "pair" else None
        build = build_flava(context, samples[kind], compiled=True)
        benchmark.measure(f"typical use, compiled, {kind}", kind, build, size, file)
    pairs = typical("pair", large)
    for compiled in context.pick((False, True), (False,)):
        name = f"typical use, {'compiled' if compiled else 'eager'}, pair, large batch"
        benchmark.measure(name, "large", build_flava(context, pairs, compiled), large)
    with context.attempt("fp32 and TF32"):
        report_fp32(context, samples["pair"], size)


def report_changing_lengths(context: Context, size: int) -> None:
    """Report what a new text length costs, with cuDNN's attention off and allowed."""
    lengths = random.Random(0).sample(LENGTHS, context.pick(6, 2))
    for cudnn in (False, True) if context.cuda else (False,):
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        first, *others = (
            sample_list("pair", build_batch(context, size, length, length, seed), cached=True)
            for seed, length in enumerate(lengths)
        )
        step = TrainingStep(context, build_flava(context, first))
        step()
        new, known = ([time_step(context, step, batch) for batch in others] for _ in range(2))
        name = f"changing lengths, cuDNN attention {'allowed' if cudnn else 'off'}"
        medians = {"ms_new_length": 1e3 * statistics.median(new), "ms_known_length": 1e3 * statistics.median(known)}
        context.report(name, **medians)
    torch.backends.cuda.enable_cudnn_sdp(False)


def time_step(context: Context, step: TrainingStep, batch: Any) -> float:
    """Return the seconds of one step."""
    synchronize(context)
    start = time.perf_counter()
    step(batch)
    synchronize(context)
    return time.perf_counter() - start


def report_fp32(context: Context, samples: Any, size: int) -> None:
    """Report a step in fp32, with and without TF32 in matrix products."""
    step = TrainingStep(context, build_flava(context, samples))
    for name in ("fp32", "TF32"):
        set_tf32(name == "TF32")
        seconds = seconds_per_call(context, lambda: step(bf16=False), warmup=2, repeats=4)
        context.report(f"typical use, eager, pair, {name}", ms=1e3 * seconds, samples_per_s=size / seconds)
    set_tf32(False)
