"""Import stub of the package demjson, which MMF uses to parse ``--config_override``."""

from typing import Any

from mmf_flava.compat.patch import patch


@patch(
    "demjson",
    when="virtual",
    what="demjson.decode uses the YAML parser",
    why="MMF 1.0.0rc10 imports demjson, which cannot be built any more (it needs setuptools' use_2to3)",
    since="setuptools 58",
    until="MMF parses --config_override with OmegaConf",
)
def decode(module: Any) -> None:
    import yaml

    # YAML includes JSON and the unquoted keys that demjson accepts
    module.decode = yaml.safe_load
