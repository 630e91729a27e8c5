"""A full-size training step of mmf_flava's trainer, compared with the training loop of other implementations.

    make bench                                     # all comparisons, on this machine's CPU or GPU
    python benchmarks/step.py --batch 64 --compile # on a GPU

A step is forward and backward pass, clipping of the gradients, and fused AdamW, see ``updates.py``: mmf_flava runs
``Updater`` with the recipe ``pretrain/own``, and the others a loop with the same optimizer and the same clipping.

mmf_flava and one other implementation run steps alternately on the same batches, each in its own process, so that
changes of the machine's speed affect both. Times are medians; ratios are medians of the ratios per repeat.
``same inputs``: fp32, 77 tokens and a running codebook for all. ``typical use``: captions of 12 words, which Hugging
Face's processor pads to 77 tokens and mmf_flava to the longest of the batch, and cached image codes, which only
mmf_flava supports.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from batches import make_batch
from peers import PEERS
from torch.utils.flop_counter import FlopCounterMode
from updates import MMF_FLAVA, build_update, read_config

from mmf_flava.command import ArgumentParser, command, integer

MIX = {"pair": 0.70, "image": 0.15, "text": 0.15}
KINDS = tuple(MIX)
CAPTION = 20  # tokens of the longest caption of a batch, 12 words with [CLS] and [SEP]
PADDED = 77


@dataclass
class Case:
    """A step to benchmark."""

    peer: str  # implementation, see PEERS
    kind: str  # pair, image, text
    mode: str  # same inputs, typical use
    precision: str  # fp32, bf16


class BenchmarkProcess:
    """A process that runs steps of a case on request."""

    def __init__(self, case: Case, arguments: argparse.Namespace) -> None:
        self.case = case
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--batch", str(arguments.batch)]
        command += ["--compile"] if arguments.compile else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.request("warm up")

    def request(self, command: str) -> dict[str, float]:
        """Send a command. ``warm up`` and ``step`` return seconds; ``end`` exits and returns extra_bytes and flop."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.process.stdout:
            if line.startswith('{"'):
                return json.loads(line)
        raise SystemExit(f"{self.case} failed with exit status {self.process.wait()}. See its error above.")


def run_worker(case: Case, batch_size: int, compiled: bool, device: torch.device) -> None:
    """Run one step per line of standard input, until the line ``end``."""
    typical, is_mmf_flava = case.mode == "typical use", case.peer == MMF_FLAVA
    short = typical and is_mmf_flava and case.kind == "pair"
    caption = CAPTION if typical and case.kind == "pair" else None
    batch = make_batch(batch_size, CAPTION if short else PADDED, caption).to(device)
    torch.manual_seed(0)
    config = read_config(case.precision)
    before = _memory(device)
    update = build_update(case.peer, case.kind, batch, typical and is_mmf_flava, compiled, config, device)

    def step() -> float:
        start = time.perf_counter()
        update.run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    step()  # allocates the optimizer state
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(json.dumps({"seconds": step()}), flush=True)
    extra = _memory(device, peak=True) - before - update.state_bytes()
    flops = FlopCounterMode(display=False)
    with flops:
        step()
    print(json.dumps({"extra_bytes": extra, "flop": flops.get_total_flops()}), flush=True)


def _memory(device: torch.device, peak: bool = False) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Comparison:
    """Results of (mmf_flava, other): medians."""

    seconds: tuple[float, float]
    ratio: float  # median of other / mmf_flava per repeat
    extra_bytes: tuple[float, float]
    flop: tuple[float, float]


def compare(case: Case, other: Case, arguments: argparse.Namespace) -> Comparison:
    """Run steps of both cases alternately."""
    processes = [BenchmarkProcess(case, arguments), BenchmarkProcess(other, arguments)]
    repeats = [[process.request("step")["seconds"] for process in processes] for _ in range(arguments.repeats)]
    totals = [process.request("end") for process in processes]
    print(f"{case} compared with {other.peer}: {repeats}", file=sys.stderr, flush=True)
    return Comparison(
        seconds=tuple(statistics.median(column) for column in zip(*repeats, strict=True)),
        ratio=statistics.median(b / a for a, b in repeats),
        extra_bytes=tuple(total["extra_bytes"] for total in totals),
        flop=tuple(total["flop"] for total in totals),
    )


def time_rows(title: str, peer: str, comparisons: dict[str, Comparison], batch: int) -> str:
    """Return a Markdown row for each implementation. The mix is the paper's 0.70/0.15/0.15."""
    lines = []
    for side, name in enumerate((MMF_FLAVA, peer)):
        mix = sum(MIX[kind] * comparisons[kind].seconds[side] for kind in KINDS)
        pair = comparisons["pair"]
        seconds = " | ".join(f"{comparisons[kind].seconds[side]:.2f}" for kind in KINDS)
        lines.append(
            f"| {title} | {name} | {seconds} | {mix:.2f} | {batch / mix:.2f} "
            f"| {pair.flop[side] / 1e9 / batch:.0f} | {pair.flop[side] / pair.seconds[side] / 1e9:.0f} "
            f"| {pair.extra_bytes[side] / 1e9:.2f} |"
        )
    return "\n".join(lines)


def ratio_row(title: str, peer: str, comparisons: dict[str, Comparison]) -> str:
    """Return a Markdown row: speedups of mmf_flava, the speedup expected from FLOP counts, and the memory ratio."""
    mix = [sum(MIX[kind] * comparisons[kind].seconds[side] for kind in KINDS) for side in (0, 1)]
    flop = [sum(MIX[kind] * comparisons[kind].flop[side] for kind in KINDS) for side in (0, 1)]
    memory = comparisons["pair"].extra_bytes
    ratios = [comparisons[kind].ratio for kind in KINDS] + [mix[1] / mix[0], flop[1] / flop[0], memory[0] / memory[1]]
    return f"| {title} | {peer} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"


def list_comparisons(device: torch.device) -> list[tuple[str, str, dict[str, str]]]:
    """Return (peer, mode, precision by implementation) of all comparisons that this machine supports."""
    bf16 = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    peers = [peer for peer in PEERS if peer != "torchmultimodal" or find_spec(peer)]
    supported = [(peer, "same inputs", {MMF_FLAVA: "fp32", peer: "fp32"}) for peer in peers]
    supported += [("huggingface", "typical use", {MMF_FLAVA: "fp32", "huggingface": "fp32"})]
    if bf16:
        for precision in ("bf16", "fp32"):
            supported.append(("huggingface", "typical use", {MMF_FLAVA: "bf16", "huggingface": precision}))
    else:
        print("bf16: not run, this CPU does not support it", file=sys.stderr)
    return supported


@command
def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=integer(1), default=4, help="samples per step (%(default)s)")
    parser.add_argument(
        "--repeats", type=integer(1), default=3, help="timed steps of each implementation (%(default)s)"
    )
    parser.add_argument("--mode", choices=("same inputs", "typical use"), help="run only this mode")
    parser.add_argument("--peer", choices=list(PEERS), help="compare only with this")
    parser.add_argument("--compile", action="store_true", help="use torch.compile in all implementations")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.case:
        run_worker(Case(**json.loads(arguments.case)), arguments.batch, arguments.compile, device)
        return
    times, ratios = [], []
    for peer, mode, precision in list_comparisons(device):
        if arguments.mode not in (None, mode) or arguments.peer not in (None, peer):
            continue
        cases = {kind: [Case(name, kind, mode, precision[name]) for name in precision] for kind in KINDS}
        comparisons = {kind: compare(case, other, arguments) for kind, (case, other) in cases.items()}
        title = f"{mode}, {' and '.join(dict.fromkeys(precision.values()))}"
        times.append(time_rows(title, peer, comparisons, arguments.batch))
        ratios.append(ratio_row(title, peer, comparisons))
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "timm"))
    print(f"{hardware}, {packages}, batch {arguments.batch}, compile {arguments.compile}\n")
    print("\n".join([TIMES, *times, "", RATIOS, *ratios]))


TIMES = """\
| mode | model | pair s | image s | text s | mix s | mix samples/s | pair GFLOP/sample | pair GFLOP/s | pair extra GB |
|---|---|---|---|---|---|---|---|---|---|"""
RATIOS = """\
| speedup of mmf_flava | over | pair | image | text | mix | mix, by FLOP count | extra memory ratio, pairs |
|---|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
    sys.exit(main())
