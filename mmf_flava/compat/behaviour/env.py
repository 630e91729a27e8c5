"""Patch that registers FLAVA's models, trainers and datasets with MMF."""

import importlib.util
import sys
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap

PLUGIN = "mmf_flava.plugin"


@patch(
    "mmf.utils.env",
    what="setup_imports() also imports mmf_flava.plugin, in every run",
    why="MMF does not find plugins by entry points, and FLAVA must also be registered if env.user_dir is not set",
    since="MMF 1.0.0rc1",
    until="MMF finds plugins by entry points",
)
def plugin(module: Any) -> None:
    @wrap(module, "setup_imports")
    def setup_imports(original: Any) -> None:
        original()
        if PLUGIN not in sys.modules and not _is_importing_mmf_flava() and importlib.util.find_spec(PLUGIN):
            flava_run.process_is_flava()  # cached before the import, because it checks which modules are imported
            importlib.import_module(PLUGIN)


def _is_importing_mmf_flava() -> bool:
    # `import mmf_flava.models.x` imports MMF, which calls setup_imports before x is completely imported. The plugin
    # would import the partial module x. MMF's run() calls setup_imports again later.
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("mmf_flava.")]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)
