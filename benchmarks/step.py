"""One full-size training step (forward, backward, AdamW) of mmf_flava beside its peers, on the same batches in one run.

    make bench                                     # every case, on this machine's CPU or GPU
    python benchmarks/step.py --batch 64 --compile # on a GPU

We and one peer at a time take steps in turn, each in a process of its own, so that a machine whose speed drifts slows
both; the figures are medians, the ratios medians over the turns. ``like for like`` is fp32, 77 tokens, the codebook
running, for everybody. ``as meant to be used``: captions of 12 words, which Hugging Face's processor pads to 77 and we
to the batch's longest, and image codes that were cached once, which only we can take.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from batches import make_batch
from peers import PEERS
from torch.utils.flop_counter import FlopCounterMode

OURS = "mmf_flava"
MIX = {"pair": 0.70, "image": 0.15, "text": 0.15}
KINDS = tuple(MIX)
CAPTION = 20  # tokens of a caption of 12 words with [CLS] and [SEP], the longest of a batch
PADDED = 77


@dataclass
class Case:
    peer: str
    kind: str  # pair, image, text
    mode: str  # like for like, as meant
    precision: str  # fp32, bf16


class Contender:
    """A case in a process of its own, which takes a step when it is told to."""

    def __init__(self, case: Case, arguments: argparse.Namespace) -> None:
        self.case = case
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--batch", str(arguments.batch)]
        command += ["--compile"] if arguments.compile else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("warm up")

    def ask(self, what: str) -> dict[str, float]:
        """``warm up`` and ``step`` -> seconds; ``end`` -> extra_bytes, flop, and the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.process.stdout:
            if line.startswith('{"'):
                return json.loads(line)
        raise SystemExit(f"{self.case} ended with status {self.process.wait()}; its error stands above.")


def contend(case: Case, batch_size: int, compiled: bool, device: torch.device) -> None:
    """Takes one step for each line of standard input until it says ``end``."""
    used, own = case.mode == "as meant", case.peer == OURS
    short = used and own and case.kind == "pair"
    caption = CAPTION if used and case.kind == "pair" else None
    batch = make_batch(batch_size, CAPTION if short else PADDED, caption).to(device)
    torch.manual_seed(0)
    before = _memory(device)
    with device:
        model, forward = PEERS[case.peer](case.kind, batch, cached=used and own, compiled=compiled)
    model = model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)  # for everybody
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16")

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = forward()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    step()  # allocates gradients and the optimizer's state
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(json.dumps({"seconds": step()}), flush=True)
    peak = _memory(device, peak=True)
    kept = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    kept += [*model.state_dict().values(), *(p.grad for p in trained if p.grad is not None)]
    state = sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in kept}.values())
    flops = FlopCounterMode(display=False)
    with flops:
        step()
    print(json.dumps({"extra_bytes": peak - before - state, "flop": flops.get_total_flops()}), flush=True)


def _memory(device: torch.device, peak: bool = False) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Duel:
    """A step of ours against one of a peer: medians of (ours, theirs), and of theirs / ours turn by turn."""

    seconds: tuple[float, float]
    ratio: float
    extra_bytes: tuple[float, float]
    flop: tuple[float, float]


def duel(ours: Case, theirs: Case, arguments: argparse.Namespace) -> Duel:
    both = [Contender(case, arguments) for case in (ours, theirs)]
    turns = [[contender.ask("step")["seconds"] for contender in both] for _ in range(arguments.turns)]
    ends = [contender.ask("end") for contender in both]
    print(f"{ours} against {theirs.peer}: {turns}", file=sys.stderr, flush=True)
    return Duel(
        seconds=tuple(statistics.median(column) for column in zip(*turns, strict=True)),
        ratio=statistics.median(b / a for a, b in turns),
        extra_bytes=tuple(end["extra_bytes"] for end in ends),
        flop=tuple(end["flop"] for end in ends),
    )


def rows(title: str, peer: str, duels: dict[str, Duel], batch: int) -> str:
    """Markdown: a row of ours, a row of the peer's; the mix is the paper's 0.70/0.15/0.15."""
    lines = []
    for side, name in enumerate((OURS, peer)):
        mix = sum(MIX[kind] * duels[kind].seconds[side] for kind in KINDS)
        pair = duels["pair"]
        seconds = " | ".join(f"{duels[kind].seconds[side]:.2f}" for kind in KINDS)
        lines.append(
            f"| {title} | {name} | {seconds} | {mix:.2f} | {batch / mix:.2f} "
            f"| {pair.flop[side] / 1e9 / batch:.0f} | {pair.flop[side] / pair.seconds[side] / 1e9:.0f} "
            f"| {pair.extra_bytes[side] / 1e9:.2f} |"
        )
    return "\n".join(lines)


def ratios(title: str, peer: str, duels: dict[str, Duel]) -> str:
    """How many times faster we are, the bound that counted operations set, and our share of the peer's extra memory."""
    mix = [sum(MIX[kind] * duels[kind].seconds[side] for kind in KINDS) for side in (0, 1)]
    work = [sum(MIX[kind] * duels[kind].flop[side] for kind in KINDS) for side in (0, 1)]
    memory = duels["pair"].extra_bytes
    found = [duels[kind].ratio for kind in KINDS] + [mix[1] / mix[0], work[1] / work[0], memory[0] / memory[1]]
    return f"| {title} | {peer} | {' | '.join(f'{figure:.2f}' for figure in found)} |"


def matches(device: torch.device) -> list[tuple[str, str, dict[str, str]]]:
    """(peer, mode, precision of either side) of every comparison that this machine can make."""
    half = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    peers = [peer for peer in PEERS if peer != OURS and (peer != "torchmultimodal" or find_spec(peer))]
    found = [(peer, "like for like", {OURS: "fp32", peer: "fp32"}) for peer in peers]
    found += [("huggingface", "as meant", {OURS: "fp32", "huggingface": "fp32"})]
    if half:
        found += [("huggingface", "as meant", {OURS: "bf16", "huggingface": full}) for full in ("bf16", "fp32")]
    else:
        print("bf16: not run, this CPU has no instructions for it", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="samples a step (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="timed steps of each, the medians count (%(default)s)")
    parser.add_argument("--mode", choices=("like for like", "as meant"), help="only this one")
    parser.add_argument("--peer", choices=[peer for peer in PEERS if peer != OURS], help="only against this one")
    parser.add_argument("--compile", action="store_true", help="torch.compile for everybody")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.case:
        contend(Case(**json.loads(arguments.case)), arguments.batch, arguments.compile, device)
        return
    figures, against = [], []
    for peer, mode, precision in matches(device):
        if arguments.mode not in (None, mode) or arguments.peer not in (None, peer):
            continue
        cases = {kind: [Case(name, kind, mode, precision[name]) for name in precision] for kind in KINDS}
        duels = {kind: duel(ours, theirs, arguments) for kind, (ours, theirs) in cases.items()}
        title = f"{mode}, {' against '.join(dict.fromkeys(precision.values()))}"
        figures.append(rows(title, peer, duels, arguments.batch))
        against.append(ratios(title, peer, duels))
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "timm"))
    print(f"{hardware}, {packages}, batch {arguments.batch}, compile {arguments.compile}\n")
    print("\n".join([FIGURES, *figures, "", AGAINST, *against]))


FIGURES = """\
| what | who | pair s | image s | text s | mix s | mix samples/s | pair GFLOP a sample | pair GFLOP/s | pair extra GB |
|---|---|---|---|---|---|---|---|---|---|"""
AGAINST = """\
| times faster than | peer | pair | image | text | mix | mix, by counted operations | extra memory, pairs |
|---|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
