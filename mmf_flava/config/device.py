"""Validation of ``training.device``: ``cpu``, ``cuda``, or ``cuda:N`` for one of several GPUs."""

import re

from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError


def parse_device(name: str, where: str = "training.device") -> tuple[str, int | None]:
    """Return the device type (``cpu`` or ``cuda``) and the GPU's index (N for ``cuda:N``, otherwise None).

    Args:
        where: the key or option, for messages.

    Raises:
        UserError: ``name`` is invalid. The message suggests the closest valid name.
    """
    if match := re.fullmatch(r"(cpu|cuda)|cuda:(\d+)", name):
        return match[1] or "cuda", None if match[2] is None else int(match[2])
    corrected = name.lower().replace("gpu", "cuda")
    hint = suggestion(name, ("cpu", "cuda"))
    if re.fullmatch(r"cpu|cuda(:\d+)?", corrected):
        hint = f" Did you mean '{corrected}'?"
    raise UserError(f"{where}: {name!r} is not a device. Use cpu, cuda or cuda:N.{hint}")


def check_device(name: str, gpus: int, where: str = "training.device") -> None:
    """Raise UserError if ``name`` is invalid or is a GPU that is not visible to this process.

    Args:
        gpus: number of GPUs visible to this process.
        where: the key or option, for messages.
    """
    kind, index = parse_device(name, where)
    if kind == "cuda" and gpus == 0:
        raise UserError(
            f"{where} is {name}, but torch found no GPU. Set it to cpu or remove it, or install a torch "
            "build that supports the installed driver."
        )
    if index is not None and index >= gpus:
        raise UserError(f"{where}: {name} was not found. This process can use cuda:0 to cuda:{gpus - 1}.")
