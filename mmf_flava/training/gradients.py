"""Changes of the gradients of an update before the optimizer step, as in DINO's published code."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from mmf_flava.errors import UserError, join_first

EPSILON = 1e-6  # added to the norm in DINO's published code


@torch.no_grad()
def clip_each_gradient(parameters: Sequence[nn.Parameter], max_norm: float, sharded: bool) -> None:
    """Multiply each gradient by ``max_norm / (norm + EPSILON)`` if this factor is below 1.

    This is ``training.clip_norm_mode: parameter``.

    Args:
        parameters: this process's parameters or slices of parameters; those without a gradient are left out.
        sharded: whether a parameter is divided among processes. In this case all processes must call the function with
            slices of the same parameters, and the squared norms of the slices are summed over processes.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norms = torch.stack(torch._foreach_norm(gradients))
    if sharded:
        squares = norms.double().square()  # the square of a fp32 number may overflow fp32
        distributed.all_reduce(squares)
        norms = squares.sqrt().to(norms)
    for gradient, factor in zip(gradients, _factors(norms, max_norm), strict=True):
        gradient.mul_(factor)


def _factors(norms: Tensor, max_norm: float) -> tuple[Tensor, ...]:
    return (max_norm / (norms + EPSILON)).clamp(max=1.0).unbind()


def clear_fixed_gradients(model: nn.Module, parameters: Mapping[str, nn.Parameter], fixed: Iterable[str]) -> None:
    """Remove the gradients of the parameters ``fixed``, so that the optimizer skips them like unused parameters.

    Args:
        parameters: name -> trained parameter, or this process's slice of it.
        fixed: the result of the model's method ``fixed_parameters``.

    Raises:
        UserError: a name is not the name of a trained parameter.
    """
    names = set(fixed)
    if unknown := sorted(names - parameters.keys()):
        raise UserError(
            f"{type(model).__name__}.fixed_parameters returns {join_first(unknown, 5)}, but no trained parameter of "
            "the model has this name. Remove it."
        )
    for name in names:
        parameters[name].grad = None
