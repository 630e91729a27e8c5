"""The values of ``training.device``: ``cpu``, ``cuda``, and ``cuda:N`` for one of several GPUs."""

import re

from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError


def parse_device(name: str) -> tuple[str, int | None]:
    """Return ``cpu`` or ``cuda``, and the number of the GPU in ``cuda:N``.

    Raises:
        UserError: another name; the message contains the closest valid one.
    """
    if match := re.fullmatch(r"(cpu|cuda)|cuda:(\d+)", name):
        return match[1] or "cuda", None if match[2] is None else int(match[2])
    corrected = name.lower().replace("gpu", "cuda")
    hint = suggestion(name, ("cpu", "cuda"))
    if re.fullmatch(r"cpu|cuda(:\d+)?", corrected):
        hint = f" Did you mean '{corrected}'?"
    raise UserError(f"training.device: {name!r} is not a device. Use cpu, cuda or cuda:N.{hint}")


def check_device(name: str, gpus: int) -> None:
    """Raise UserError if ``name`` is invalid or is not among the ``gpus`` GPUs that this process can use."""
    kind, index = parse_device(name)
    if kind == "cuda" and gpus == 0:
        raise UserError(
            f"training.device: {name}, but torch found no GPU. Set it to cpu or remove it, or install a torch that "
            "supports the driver of this machine."
        )
    if index is not None and index >= gpus:
        raise UserError(f"training.device: {name} was not found. The GPUs of this process are cuda:0 to cuda:{gpus - 1}.")
