"""Loading of pretrained weights into a model that is not of mmf_flava, such as a model of MMF."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.weights.loading import IncompatibleKeys, load_tensors
from mmf_flava.weights.sources import find_weights
from mmf_flava.weights.weight_files import read_tensors


def load_stock_weights(
    model: nn.Module,
    source: str | Path,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    cache_dir: str | Path | None = None,
    mapping: Mapping[str, str] | None = None,
) -> IncompatibleKeys:
    """Load weights under the names of the model, in place. No pickled code is executed.

    Args:
        source, cache_dir: see ``sources.find_weights``.
        allow_missing, allow_extra: see ``loading.compare_keys``.
        mapping: ``checkpoint.pretrained_state_mapping``: module of the model -> module of the file that is loaded into
            it. All other weights keep their initial values.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, or the weights do not
            match the model.
    """
    tensors, _ = read_found(lambda: find_weights(source, cache_dir), read_tensors)
    rename = getattr(model, "format_state_key", lambda key: key)  # translates names of earlier versions of MMF
    tensors = {rename(key.removeprefix("module.")): value for key, value in tensors.items()}  # of DataParallel
    name = hide_address(source)
    if mapping:
        tensors = _select(model, tensors, mapping, name)
        allow_missing = ["*"]
    return load_tensors(model, tensors, name, allow_missing=allow_missing, allow_extra=allow_extra)


def _select(model: Any, tensors: Mapping[str, Tensor], mapping: Mapping[str, str], source: str) -> dict[str, Tensor]:
    """Return the tensors that MMF would copy: equal names after the mapped modules are removed from them."""
    selected: dict[str, Tensor] = {}
    for own, theirs in mapping.items():
        own, theirs = f"{own}.", f"{theirs}."
        found = {key.replace(theirs, ""): value for key, value in tensors.items() if theirs in key}
        names = {key: key.replace(own, "") for key in model.state_dict() if own in key}
        selected |= {key: found[rest] for key, rest in names.items() if rest in found}
    if not selected:
        raise UserError(
            f"checkpoint.pretrained_state_mapping: {source} and the model have no equal weights in the modules "
            f"{', '.join(mapping)}. Map modules of the model to modules of the file, such as "
            f"{next(iter(tensors), 'none')}."
        )
    return selected
