"""The optimizer's parameter groups of any MMF model."""

from collections.abc import Mapping
from typing import Any

from mmf.utils.general import get_optimizer_parameters
from torch import Tensor, nn

from mmf_flava.errors import UserError, join_first


def parameter_groups(model: nn.Module, config: Any) -> list[dict[str, Any]]:
    """Return the groups of MMF's ``get_optimizer_parameters``, in which each trained parameter occurs once.

    Frozen parameters are left out. As in MMF, a model need not return all of its parameters: the others are frozen
    here, so that no gradients are computed for them. MMF's main branch requires ``optimizer.allow_unused_parameters``.

    Args:
        config: the complete MMF config.

    Raises:
        UserError: a parameter is in two groups or not of the model, parameters are in no group, or all are frozen.
    """
    method = f"{type(model).__name__}.get_optimizer_parameters"
    try:
        found = list(get_optimizer_parameters(model, config))
    except Exception as error:
        if "allow_unused_parameters" not in str(error):
            raise
        raise UserError(
            f"{method} does not return all trained parameters; the log names the others. Return them, or set "
            "optimizer.allow_unused_parameters: true to freeze them."
        ) from None
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups, seen = [], set[nn.Parameter]()
    for group in found if found and isinstance(found[0], Mapping) else [{"params": found}]:
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(dict.fromkeys(params))
        if unknown := [value for value in params if value not in names]:
            raise UserError(
                f"{method} returns a {type(unknown[0]).__name__} that is no parameter of the model. Remove it."
            )
        if repeated := [names[parameter] for parameter in params if parameter in seen]:
            raise UserError(f"{method} returns {join_first(repeated, 5)} in two groups. Return each parameter once.")
        seen.update(params)
        if trained := [parameter for parameter in params if parameter.requires_grad]:
            groups.append({**group, "params": trained})
    for parameter in names.keys() - seen:
        parameter.requires_grad_(False)
    if not groups:
        raise UserError(f"{method} returns no parameter that requires a gradient. Train at least one module.")
    return groups
