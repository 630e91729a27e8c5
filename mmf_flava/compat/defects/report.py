"""Patch that logs the names of the defects that are fixed in a run."""

from typing import Any

from mmf_flava.compat.patch import APPLIED_PATCHES, patch, wrap


@patch(
    "mmf.utils.build",
    what="each run logs the names of the fixed defects",
    why="patches of kind defects change the results of MMF's models",
    since="mmf_flava 0.1",
    until="mmf_flava has no patches of kind defects",
)
def fixed_defects(module: Any) -> None:
    @wrap(module, "build_trainer")
    def build_trainer(original: Any, config: Any) -> Any:
        fixed = [one.name for one in APPLIED_PATCHES if one.kind == "defects" and one.change is not fixed_defects]
        _log(module, ", ".join(sorted(fixed)))
        return original(config)


def _log(module: Any, names: str) -> None:
    """Log the names on the first process. With MMF 1.0.0rc10, nothing is logged if MMF's log writer does not exist."""
    message = f"mmf_flava fixes these defects (python -m mmf_flava.compat explains them): {names}"
    if hasattr(module, "logger"):  # MMF's main branch
        if module.is_main():
            module.logger.info(message)
    elif writer := module.registry.get("writer", no_warning=True):
        writer.write(message)
