"""One full-size training step (forward, backward, AdamW) of mmf_flava beside its peers, on the same batches in one run.

    make bench                                     # every case, on this machine's CPU or GPU
    python benchmarks/step.py --batch 64 --compile # on a GPU

Every case runs in a process of its own. ``like for like`` is fp32, 77 tokens, the codebook running, for everybody.
``as meant to be used``: captions of 12 words, which Hugging Face's processor pads to 77 and we to the batch's longest,
and image codes that were cached once, which only we can take.
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
from pathlib import Path

import torch
from batches import make_batch
from peers import PEERS
from torch.utils.flop_counter import FlopCounterMode

MIX = {"pair": 0.70, "image": 0.15, "text": 0.15}
CAPTION = 20  # tokens of a caption of 12 words with [CLS] and [SEP], the longest of a batch
PADDED = 77


@dataclass
class Case:
    peer: str
    kind: str  # pair, image, text
    mode: str  # like for like, as meant
    precision: str  # fp32, bf16


def measure(case: Case, batch_size: int, steps: int, compiled: bool, device: torch.device) -> dict[str, float]:
    """Seconds a step (median), peak bytes beyond parameters, gradients and optimizer state, FLOP of a step."""
    used, own = case.mode == "as meant", case.peer == "mmf_flava"
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

    for _ in range(2):
        step()
    seconds = [step() for _ in range(steps)]
    peak = _memory(device, peak=True)
    kept = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    kept += [*model.state_dict().values(), *(p.grad for p in trained if p.grad is not None)]
    state = sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in kept}.values())
    flops = FlopCounterMode(display=False)
    with flops:
        step()
    return {
        "seconds": statistics.median(seconds),
        "extra_bytes": peak - before - state,
        "flop": flops.get_total_flops(),
    }


def _memory(device: torch.device, peak: bool = False) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_apart(case: Case, arguments: argparse.Namespace) -> dict[str, float] | None:
    """The figures of a case, from a process of its own; None where its peer is not installed."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--batch", str(arguments.batch)]
    command += ["--steps", str(arguments.steps), *(["--compile"] if arguments.compile else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and f"No module named '{case.peer}'" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cases() -> list[Case]:
    like = [Case(peer, kind, "like for like", "fp32") for peer in PEERS for kind in MIX]
    meant = [Case(peer, kind, "as meant", "fp32") for peer in ("mmf_flava", "huggingface") for kind in MIX]
    half = [Case(peer, kind, "as meant", "bf16") for peer in ("mmf_flava", "huggingface") for kind in MIX]
    return like + meant + half


def table(results: dict[tuple[str, str, str], dict[str, dict[str, float]]], batch: int) -> str:
    """Markdown: a row for each peer, mode and precision; the mix is the paper's 0.70/0.15/0.15."""
    rows = [
        "| what | peer | pair s | image s | text s | mix s | mix samples/s | pair GFLOP/s | pair extra memory GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (mode, precision, peer), kinds in results.items():
        mix = sum(MIX[kind] * kinds[kind]["seconds"] for kind in MIX)
        pair = kinds["pair"]
        seconds = " | ".join(f"{kinds[kind]['seconds']:.2f}" for kind in MIX)
        rows.append(
            f"| {mode}, {precision} | {peer} | {seconds} | {mix:.2f} | {batch / mix:.2f} "
            f"| {pair['flop'] / pair['seconds'] / 1e9:.0f} | {pair['extra_bytes'] / 1e9:.2f} |"
        )
    return "\n".join(rows)


def ratios(results: dict[tuple[str, str, str], dict[str, dict[str, float]]]) -> list[str]:
    """How many times faster we are than each peer on the mix, and our share of its extra memory on pairs."""

    def mix(key: tuple[str, str, str]) -> float:
        return sum(MIX[kind] * results[key][kind]["seconds"] for kind in MIX)

    lines = []
    for mode, precision, peer in results:
        own = (mode, precision, "mmf_flava")
        if peer == "mmf_flava" or own not in results:
            continue
        memory = results[own]["pair"]["extra_bytes"] / results[(mode, precision, peer)]["pair"]["extra_bytes"]
        lines.append(
            f"{mode}, {precision}: {mix((mode, precision, peer)) / mix(own):.2f} x {peer} on the mix, "
            f"{memory:.2f} of its extra memory on pairs"
        )
    half, full = ("as meant", "bf16", "mmf_flava"), ("as meant", "fp32", "huggingface")
    if half in results and full in results:
        lines.append(f"as meant, our bf16 against fp32: {mix(full) / mix(half):.2f} x huggingface on the mix")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="samples a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a case, the median counts (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch.compile for everybody")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.case:
        case = Case(**json.loads(arguments.case))
        print(json.dumps(measure(case, arguments.batch, arguments.steps, arguments.compile, device)))
        return
    results: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for case in cases():
        found = run_apart(case, arguments)
        if found is not None:
            results.setdefault((case.mode, case.precision, case.peer), {})[case.kind] = found
            print(f"{case}: {found['seconds']:.2f} s", file=sys.stderr, flush=True)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "timm"))
    print(f"{hardware}, {packages}, batch {arguments.batch}, compile {arguments.compile}\n")
    print(table(results, arguments.batch), "\n", sep="\n")
    print("\n".join(ratios(results)))


if __name__ == "__main__":
    main()
