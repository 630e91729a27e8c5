"""The parts of the device check and their time limits; a part's module is imported in the part's process only."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the check.

    name: as in ``--parts``.
    module: has ``run(context)``.
    seconds: the time limit on a GPU; on a CPU it is ``runner.CPU_FACTOR`` times as long.
    concurrent: whether the part may run beside others on a GPU: it measures no times.
    """

    name: str
    module: str
    seconds: float
    concurrent: bool = False


# in the order in which they run: correctness, then speed; the least important last
PARTS = (
    Part("environment", "device.environment", 30),
    Part("shards", "device.shards", 90, concurrent=True),
    Part("precision", "device.precision", 120, concurrent=True),
    Part("ranks", "device.ranks", 120, concurrent=True),
    Part("collectives", "device.collectives", 120, concurrent=True),
    Part("step", "device.step", 170),
    Part("trainer", "device.trainer", 120),
    Part("huggingface", "device.peer_step", 45),
    Part("torchmultimodal", "device.peer_step", 45),
    Part("attention", "device.attention", 30),
    Part("embedding", "device.embedding", 45),
    Part("loader", "device.loader_rate", 40),
    Part("huggingface_compiled", "device.peer_step", 150),
    Part("torchmultimodal_compiled", "device.peer_step", 150),
)


def select_parts(names: str | None, parts: Sequence[Part] = PARTS) -> list[Part]:
    """Return the parts of a comma-separated list of names, in their usual order; all without a list.

    Raises:
        ValueError: a name is unknown.
    """
    if not names:
        return list(parts)
    selected = [name.strip() for name in names.split(",")]
    known = [part.name for part in parts]
    if unknown := [name for name in selected if name not in known]:
        raise ValueError(f"unknown part {', '.join(unknown)}. Known: {', '.join(known)}.")
    return [part for part in parts if part.name in selected]
