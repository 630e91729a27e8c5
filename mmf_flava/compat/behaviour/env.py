"""The registration of FLAVA with MMF."""

import importlib.util
import sys
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap

PLUGIN = "mmf_flava.plugin"


@patch(
    "mmf.utils.env",
    what="setup_imports() imports mmf_flava.plugin too, in every run",
    why="MMF has no entry points: FLAVA must be registered however MMF is started, without env.user_dir",
    since="MMF 1.0.0rc1",
    until="MMF finds plugins by entry points",
)
def plugin(module: Any) -> None:
    @wrap(module, "setup_imports")
    def setup_imports(original: Any) -> None:
        original()
        if PLUGIN not in sys.modules and not _is_importing_mmf_flava() and importlib.util.find_spec(PLUGIN):
            flava_run.process_is_flava()  # decided now, because it looks at the imported modules
            importlib.import_module(PLUGIN)


def _is_importing_mmf_flava() -> bool:
    # `import mmf_flava.models.x` imports MMF, which calls setup_imports before x is complete: the plugin would import
    # a partial x. MMF's run() calls setup_imports again, when x is complete.
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("mmf_flava.")]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)
